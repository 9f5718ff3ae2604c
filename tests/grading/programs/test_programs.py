"""What programs and their tests may do although they share no process."""

from __future__ import annotations

import time

import pytest

from stepcredit.errors import UserError
from stepcredit.grading import GradingItem, make_grader
from stepcredit.grading.programs import confinement

CASES = {
    "arguments that change": ("def f(x): x.sort()", "a = [3, 1, 2]\nf(a)\nassert a == [1, 2, 3]"),
    "named arguments that change": (
        "def f(a, b=None): b.append(a)",
        "x = []\nf(1, b=x)\nassert x == [1]",
    ),
    "objects of the program": (
        "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
        "    def __len__(self): return len(self.items)",
        "s = Stack()\ns.push(1)\nassert len(s) == 1\nassert s.items == [1]\nassert isinstance(s, Stack)",
    ),
    "operators of the program's classes": (
        "class V:\n    def __init__(self, x): self.x = x\n    def __add__(self, o): return V(self.x + o.x)\n"
        "    def __eq__(self, o): return self.x == o.x\n    def __repr__(self): return f'V({self.x})'",
        "assert V(1) + V(2) == V(3)\nassert V(1) != V(2)\nassert repr(V(1)) == 'V(1)'",
    ),
    "objects of the tests": (
        "def f(node):\n    total = 0\n    while node:\n        total += node.value; node = node.next\n"
        "    return total",
        "class Node:\n    def __init__(self, value, next=None): self.value, self.next = value, next\n"
        "assert f(Node(1, Node(2))) == 3",
    ),
    "functions of the tests": (
        "def f(g, xs): return [g(x) for x in xs]",
        "assert f(lambda x: x + 1, [1]) == [2]",
    ),
    "generators of both": (
        "def squares(xs):\n    for x in xs: yield x * x",
        "def numbers():\n    yield 1\n    yield 2\nassert list(squares(numbers())) == [1, 4]",
    ),
    "errors of the program": (
        "class Base(ValueError): pass\nclass Own(Base): pass\ndef f(): raise Own('why')",
        "for kind in (Own, Base, ValueError):\n    try: f()\n"
        "    except kind as error: assert str(error) == 'why'\n    else: assert False",
    ),
    "values of many kinds": (
        "from collections import Counter, deque\nfrom fractions import Fraction\nimport datetime\n"
        "def f(): return {1: (2, [3.5]), 'a': {4}, None: float('inf'), 'b': b'x', 'c': Fraction(1, 3), "
        "'d': datetime.date(2020, 1, 2), 'e': deque([1]), 'f': Counter('aab'), 'g': 10**5000, 'h': 1j}",
        "import datetime\nfrom collections import deque\nfrom fractions import Fraction\n"
        "assert f() == {1: (2, [3.5]), 'a': {4}, None: float('inf'), 'b': b'x', 'c': Fraction(1, 3), "
        "'d': datetime.date(2020, 1, 2), 'e': deque([1]), 'f': {'a': 2, 'b': 1}, 'g': 10**5000, 'h': 1j}",
    ),
    "arrays": (
        "import numpy as np\ndef f(n): return np.arange(n) * 2.0",
        "assert f(3).shape == (3,)\nassert np.allclose(f(3), [0, 2, 4])",
    ),
    "names that the program imported": (
        "import math\nfrom typing import List\ndef f(): return 0.1 + 0.2",
        "x: List[int] = []\nassert math.isclose(f(), 0.3)",
    ),
    "state": ("n = 0\ndef f():\n    global n\n    n += 1\n    return n", "assert [f(), f()] == [1, 2]"),
    "threads and event loops": (
        "import asyncio, threading\nasync def g(): return 1\ndef f():\n    out = []\n"
        "    t = threading.Thread(target=out.append, args=(2,)); t.start(); t.join()\n"
        "    return out + [asyncio.run(g())]",
        "assert f() == [2, 1]",
    ),
    "files of its own": (
        "import tempfile, os\ndef f():\n    with tempfile.TemporaryDirectory() as folder:\n"
        "        open(os.path.join(folder, 'x'), 'w').write('y')\n        return os.listdir(folder)",
        "assert f() == ['x']",
    ),
    "standard input as bytes": (
        "import sys\nprint(len(sys.stdin.buffer.read()))",
        '{"inputs": ["abc", "x"], "outputs": ["3", "1"]}',
    ),
}
WRONG = {
    "its own equality with plain data": (
        "class A:\n    def __eq__(self, o): return True\nf = A",
        "assert f() == 3",
    ),
    "an error where none is expected": ("def f(): return 1 / 0", "f()"),
    "no such name": ("def f(): return 1", "assert g() == 1"),
    "private things of the tests": ("def f(g): return g.__globals__", "def g(): pass\nf(g)"),
}


def test_tests_use_programs_as_if_they_were_here() -> None:
    with make_grader("code") as grader:
        grades = grader.grade_all(
            GradingItem(f"```python\n{program}\n```", tests) for program, tests in CASES.values()
        )
        assert {
            name: grade.reason for name, grade in zip(CASES, grades, strict=True) if not grade.correct
        } == {}


def test_what_is_wrong_fails() -> None:
    with make_grader("code") as grader:
        grades = grader.grade_all(
            GradingItem(f"```python\n{program}\n```", tests) for program, tests in WRONG.values()
        )
        reasons = {name: grade.reason for name, grade in zip(WRONG, grades, strict=True)}
    assert reasons["its own equality with plain data"].startswith("differs: AssertionError")
    assert reasons["an error where none is expected"] == "differs: ZeroDivisionError: division by zero"
    assert reasons["no such name"].startswith("differs: NameError")
    assert reasons["private things of the tests"].startswith("differs: PermissionError")


def test_thousands_of_calls_take_seconds() -> None:
    with make_grader("code", time_limit=30.0) as grader:
        start = time.monotonic()
        grade = grader.grade("def f(x): return 2 * x", "for n in range(3000): assert f(n) == 2 * n")
    assert grade.correct
    assert time.monotonic() - start < 30.0


def test_where_the_system_offers_less_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "landlock_version", lambda: 2)
    monkeypatch.setattr(confinement, "has_filter", lambda: False)
    missing = confinement.what_is_missing()
    assert missing == [
        "seccomp on x86_64 or aarch64",
        "Landlock with control of truncation (Linux 6.2 or newer)",
    ]
    monkeypatch.setattr("stepcredit.grading.code.what_is_missing", lambda: missing)
    with pytest.raises(
        UserError, match=r"cannot be sandboxed here: this system lacks seccomp.*--allow-unsafe-code"
    ):
        make_grader("code")
    with make_grader("code", allow_unsafe_code=True) as grader:
        assert grader.grade("def f(): return 1", "assert f() == 1").correct
