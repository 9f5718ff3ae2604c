from __future__ import annotations

from pathlib import Path

import pytest

from stepcredit.errors import DataError, UserError
from stepcredit.grading import Grade, GradingItem, make_grader
from stepcredit.grading.base import RULES
from stepcredit.grading.code import find_program
from stepcredit.grading.simple import ChoiceGrader, NumericGrader

ADD = "assert add(1, 2) == 3"


def fenced(program: str) -> str:
    return f"Here it is:\n```python\n{program}\n```\nDone."


def test_a_grader_has_a_name_and_known_options() -> None:
    with pytest.raises(UserError, match=r"--grader: there is no grader 'maths'. Use one of math, numeric"):
        make_grader("maths")
    with pytest.raises(UserError, match="'exact' has no option 'tolerance'"):
        make_grader("exact", tolerance=0.1)
    with pytest.raises(UserError, match=r"--tolerance: 2.0 is not in"):
        make_grader("numeric", tolerance=2.0)
    assert make_grader("exact", tolerance=None, num_workers=3).settings == {
        "answer_pattern": None,
        "rules": RULES,
    }


def test_a_reference_that_cannot_be_used_is_an_error() -> None:
    with pytest.raises(DataError, match=r"'Paris' is not a number. Use --grader math"):
        make_grader("numeric").grade("A: 3", "Paris")
    with pytest.raises(DataError, match="does not start with a choice's letter"):
        make_grader("choice").grade("A: B", "42")


def test_the_numeric_tolerance_is_relative() -> None:
    grader = make_grader("numeric", tolerance=0.01)
    assert grader.grade("A: 101", "100").correct
    assert not grader.grade("A: 101.1", "100").correct
    assert grader.grade("A: 0", "0").correct


def test_functions_of_ones_own_grade_in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    with make_grader("python:hostile_workers:with_prediction") as grader:
        assert grader.grade("x", "x") == Grade(True, "x", "match")
        assert grader.grade("", "x") == Grade(False, None, "differs")
    with make_grader("python:hostile_workers:exact") as grader:
        items = [GradingItem(str(number), "7") for number in range(20)]
        assert [grade.correct for grade in grader.grade_all(items)].index(True) == 7


def test_a_function_that_hangs_or_returns_something_else_fails_its_item_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    with make_grader("python:hostile_workers:hanging", time_limit=0.3) as grader:
        grades = list(grader.grade_all([GradingItem("hang", ""), GradingItem("", "")]))
    assert [grade.reason for grade in grades] == ["timeout", "match"]
    with make_grader("python:hostile_workers:wrong_type") as grader:
        assert "not a boolean" in grader.grade("", "").reason


@pytest.mark.parametrize("name", ["python:module", "python::function", "python:module:not-a-name"])
def test_a_function_must_be_named_in_full(name: str) -> None:
    with pytest.raises(UserError, match="Write python:module:function"):
        make_grader(name)


def test_a_function_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UserError, match=r"could not be loaded: .*PYTHONPATH"):
        make_grader("python:no_such_module:function").grade("", "")


def test_the_last_python_block_is_the_program() -> None:
    assert find_program(fenced("a = 1") + fenced("b = 2") + "\n```text\nnot this\n```") == "b = 2"
    assert find_program("```\nx = 1\n```") == "x = 1"
    assert find_program("x = 1\n") == "x = 1"
    assert find_program("I cannot do that.") is None


def test_what_a_program_prints_is_no_program() -> None:
    assert find_program(fenced("a = 1") + "\nIt prints:\n```\n3\n```\n") == "a = 1"


def test_a_program_may_stand_in_a_list_between_tildes_or_at_a_cut_end() -> None:
    code = "def add(a, b):\n    return a + b"
    indented = "\n".join(f"   {line}" for line in code.splitlines())
    assert find_program(f"1. So:\n   ```python\n{indented}\n   ```\n2. Done.") == code
    assert find_program(f"~~~python\n{code}\n~~~") == code
    assert find_program(f"So:\n```python\n{code}\n") == code
    assert find_program("So:\n```\nnot code\n") is None


PROGRAMS = [
    ("def add(a, b): return a + b", ADD, "match"),
    ("def add(a, b): return a - b", ADD, "differs: AssertionError"),
    ("def add(a, b) return", ADD, "differs: SyntaxError"),
    ("import sys\nsys.exit(0)", ADD, "differs: SystemExit"),
    ("import os\nos._exit(0)", ADD, "crashed"),
    ("print(int(input()) * 2)", '{"inputs": ["3\\n", "4"], "outputs": ["6\\n", " 8 "]}', "match"),
    ("print(int(input()) * 3)", '{"inputs": ["3\\n"], "outputs": ["6\\n"]}', "differs: case 1 printed"),
    ("def add(a, b):\n    print('noise' * 10**5)\n    return a + b", ADD, "match"),
    (
        "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()\nadd = lambda a, b: 3",
        ADD,
        "match",
    ),
    ("open('mine.txt', 'w').write('x')\nadd = lambda a, b: 3", ADD, "match"),
]


def test_programs_are_right_if_they_pass_their_tests() -> None:
    with make_grader("code") as grader:
        grades = list(grader.grade_all(GradingItem(fenced(program), tests) for program, tests, _ in PROGRAMS))
        prose = grader.grade("I cannot do that.", ADD)
    for grade, (program, _, reason) in zip(grades, PROGRAMS, strict=True):
        assert grade.reason.startswith(reason), (program, grade)
        assert grade.prediction == program
    assert prose == Grade(False, None, "no-answer")


CONFINED = [
    ("import socket\nsocket.create_connection(('127.0.0.1', 9))", "differs: PermissionError"),
    ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')", "differs: URLError"),
    ("import os\nos.fork()", "differs: PermissionError"),
    ("import subprocess\nsubprocess.run(['true'])", "differs: PermissionError"),
    ("import os\nos.kill(os.getppid(), 9)", "differs: PermissionError"),
    ("data = bytearray(4 << 30)", "differs: MemoryError"),
    ("f = open('big', 'wb')\nwhile True: f.write(b'x' * 10**6)", "differs: OSError"),
    (
        "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'{\"value\": null}\\n')\n"
        "    except OSError: pass\nos._exit(0)",
        "crashed",
    ),
]


ENDLESS = [
    ("while True: pass", "timeout"),
    ("import time\ntime.sleep(60)", "timeout"),
]


@pytest.mark.parametrize(("programs", "time_limit"), [(CONFINED, 20.0), (ENDLESS, 1.0)])
def test_programs_are_shut_in(programs: list[tuple[str, str]], time_limit: float) -> None:
    with make_grader("code", time_limit=time_limit) as grader:
        grades = list(grader.grade_all(GradingItem(fenced(program), ADD) for program, _ in programs))
    for grade, (program, reason) in zip(grades, programs, strict=True):
        assert grade.reason.startswith(reason), (program, grade)


def test_programs_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with make_grader("code") as grader:
        assert grader.grade(fenced("open('left', 'w').write('x')\nadd = lambda a, b: 3"), ADD).correct
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("response", "answer", "correct"),
    [
        ("The answer is (b).", "B", True),
        ("The answer is b", "b", True),
        (r"\boxed{\text{b}}", "B", True),
        ("<answer>c) 12</answer>", "C", True),
        ("b", "B", True),
        ("Answer: I think it is (B)", "B", True),
        ("Answer: I", "I", True),
        ("The answer is a dog (B)", "B", True),
    ],
)
def test_small_letters_are_choices_and_words_are_not(response: str, answer: str, correct: bool) -> None:
    assert ChoiceGrader().grade(response, answer).correct is correct


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"\boxed{5 million dollars}", "5000000"),
        (r"\boxed{5000000}", "$5 million dollars"),
        (r"\boxed{5 dozen eggs}", "60"),
        (r"\boxed{1.5\times 10^{3}\text{ m}}", "1500"),
        (r"\boxed{3 1/2 cups}", "3.5"),
        (r"\boxed{-2\frac{1}{2}\text{ cups}}", "-2.5"),
    ],
)
def test_the_whole_number_before_a_unit_counts(response: str, answer: str) -> None:
    assert NumericGrader().grade(response, answer).correct


@pytest.mark.parametrize(
    ("response", "answer", "correct"),
    [
        (r"\boxed{(5, 6)}", "6", False),
        (r"\boxed{(5,6)}", "6", False),
        (r"\boxed{5, 6}", "6", False),
        ("A: 3 remainder 5", "5", False),
        (r"\boxed{2 + 3 = 5}", "5", True),
        (r"\boxed{x = 5}", "5", True),
        (r"\boxed{1,250}", "1250", True),
        (r"\boxed{50\%}", "50", True),
        (r"\boxed{50}", "50%", True),
        (r"\boxed{50\%}", "5", False),
        (r"\boxed{0.5}", "50", False),
    ],
)
def test_a_number_is_the_only_one_with_or_without_its_percent_sign(
    response: str, answer: str, correct: bool
) -> None:
    assert NumericGrader().grade(response, answer).correct is correct


@pytest.mark.parametrize(
    ("response", "answer", "correct"),
    [
        ("The answer is A or B.", "A", False),
        (r"\boxed{B, C}", "B", False),
        (r"\boxed{\text{(B)} and \text{(C)}}", "B", False),
        ("Answer: A, C", "A", False),
        ("The answer is not A.", "A", False),
        ("The answer is not A but B.", "B", True),
        ("The answer is option (d).", "D", True),
        ("The answer is C, since A is wrong.", "C", True),
    ],
)
def test_one_choice_is_neither_two_nor_one_that_is_denied(response: str, answer: str, correct: bool) -> None:
    assert ChoiceGrader().grade(response, answer).correct is correct
