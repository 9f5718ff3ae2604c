from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcredit.grading.algebra import judge
from stepcredit.grading.answers import (
    Amount,
    Assignment,
    Based,
    Choice,
    Clock,
    Formula,
    Matrix,
    Ratio,
    Region,
    Relation,
    Sequence,
    Unread,
    Words,
    parts,
    unread_text,
)
from stepcredit.grading.numbers import Number
from stepcredit.grading.reading import read


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1 3/4", Number),
        ("about 5", Number),
        ("the answer is 5", Number),
        ("x^2", Formula),
        ("5 cm", Amount),
        ("1.8 billion people", Amount),
        ("5 feet 6 inches", Amount),
        ("$5 per hour", Amount),
        (r"5\%", Amount),
        (r"5^\circ", Amount),
        ("(B) 12", Choice),
        ("12:30", Clock),
        ("2:3", Ratio),
        ("101_2", Based),
        ("1, 2", Sequence),
        ("[0, 1)", Sequence),
        (r"\pm 1", Sequence),
        (r"\{x \mid x > 2\}", Region),
        ("x < 2", Region),
        ("no solution", Region),
        ("x + y < 2", Relation),
        ("x^2 + y = 2", Relation),
        ("y = 2x", Assignment),
        ("Area = 5", Assignment),
        (r"\begin{bmatrix}1\\2\end{bmatrix}", Matrix),
        ("Evelyn", Words),
        ("5 if x", Unread),
        ("", Unread),
        ("((1)", Unread),
    ],
)
def test_answers_have_a_structure(text: str, kind: type) -> None:
    assert type(read(text)) is kind


def test_what_is_inside_is_read_too() -> None:
    answer = read(r"(\frac{1}{2}, 5 cm), (1, 2 ??)")
    assert unread_text(answer) == "2 ??"
    assert sum(isinstance(part, Amount) for part in parts(answer)) == 1
    assert unread_text(read("(1, 2)")) is None


@settings(max_examples=200)
@given(st.text(alphabet="\\frac{}()[],;:=<>|+-*/^_ pmsqrtxyi.0123%$", max_size=24))
def test_any_text_is_read_or_unread_but_never_breaks_the_judge(text: str) -> None:
    correct, form, _ = judge(text, "12345")
    assert isinstance(form, str)
    assert not correct or "12345" in text or "1" in text
