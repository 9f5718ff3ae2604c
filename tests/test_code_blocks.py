"""A response with code is cut at blocks of statements, whatever else is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stepcredit.steps import StepRule, split

CODE = StepRule.parse("code")
GUIDE = Path(__file__).parents[1] / "docs" / "code.md"


def texts(response: str) -> list[str]:
    steps = split(response, CODE)
    assert "".join(step.text for step in steps) == response
    return [step.text.strip() for step in steps]


def test_the_example_of_the_guide_has_the_steps_that_it_names() -> None:
    (response,) = re.findall(r"^````text\n(.*?)^````", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    assert texts(response) == [
        "Add them up, one by one.",
        "```python\ndef total(numbers):\n    result = 0",
        "for number in numbers:\n        result += number",
        "return result\n```",
        "The empty list gives 0.",
    ]


def fenced(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}\n```"


@pytest.mark.parametrize(
    "blocks",
    [
        ["a = 1\nb = 2\nprint(a + b)"],
        ["a = 1\n", "b = 2"],
        ["import x", "for a in x:\n    f(a)", "g()"],
        ["if a:\n    b()\nelif c:\n    d()\nelse:\n    e()"],
        ["def f():\n    for a in b:\n        if a:\n            c()"],
        ["def f(a):\n    a += 1", "    while a:\n        a -= 1"],
        ["@cache\ndef f():\n    return 1", "@cache\ndef g():\n    return 2"],
        ['def f():\n    """Say.\n\n    if so:\n    """\n    return 1'],
        ["a = [\n\n    1,\n]\nb = f(\n    2,\n)"],
        ["for i in range(n // 2):\n    f(i)", "g()"],
        ["a = '('  # and (", "if b:\n    c()"],
        ["try:\n    a()\nexcept E:\n    b()\nfinally:\n    c()"],
    ],
    ids=[
        *("a run", "blank line", "loop", "branches", "nested headers", "loop in a function", "decorators"),
        *("docstring", "brackets", "floor division", "comment with a bracket", "try"),
    ],
)
def test_blocks_of_statements(blocks: list[str]) -> None:
    steps = texts(fenced("\n".join(blocks)))
    steps[0] = steps[0].removeprefix("```python\n")
    steps[-1] = steps[-1].removesuffix("\n```")
    assert steps == [block.strip() for block in blocks]


def test_other_languages_are_cut_by_their_headers_and_indentation() -> None:
    code = "let a = 1; // (\nfor (const b of c) {\n  f(b);\n}\ng(a);"
    steps = texts(fenced(code, "js"))
    assert steps == ["```js\nlet a = 1; // (", "for (const b of c) {\n  f(b);\n}\ng(a);\n```"]


def test_prose_is_cut_at_blank_lines_and_fences_of_any_kind_are_kept_whole() -> None:
    pieces = ["One.\nTwo.\n", "Three.", "~~~\na = 1\n~~~", "Four.\n", "````md\n```\nx\n```\n````"]
    assert texts("\n".join(pieces)) == [piece.strip() for piece in pieces]


def test_the_beginning_of_a_response_is_cut_as_the_whole_is() -> None:
    (response,) = re.findall(r"^````text\n(.*?)^````", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    response += fenced("def f(a):\n    b = (1,\n         2)\n\n    if a:\n        return b\n    return 3")
    ends = [step.end for step in split(response, CODE)]
    for place in [match.end() for match in re.finditer("\n", response)]:
        if response[:place].strip():
            beginning = [step.end for step in split(response[:place], CODE)]
            assert beginning[:-1] == ends[: len(beginning) - 1]


@pytest.mark.parametrize("response", ["", "\n\n", "no code", "```", "```py\n", "```py\ndef f(:\n  ((\n"])
def test_anything_can_be_cut(response: str) -> None:
    assert "".join(step.text for step in split(response, CODE)) == response
