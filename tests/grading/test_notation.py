from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.grading.notation import normalized


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("$2½$", r"2 \frac{1}{2}"),
        ("4sqrt(2)", r"4\sqrt{2}"),
        ("√2", r"\sqrt{2}"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\dfrac{\sqrt3}3", r"\frac{\sqrt{3}}{3}"),
        (r"\left(-\infty,\,3\right)", r"(-\infty , 3)"),
        ("x²", "x^{2}"),
        ("5 x 10^-3", r"5\times 10^{-3}"),
        (r"28\text{ percent}", r"28 \%"),
        (r"\$18", r"\usd 18"),
        ("$3.50", r"\usd 3.50"),
        ("30°", r"30\deg"),
        (r"30^{\circ}", r"30\deg"),
        ("x<=3", r"x\le 3"),
        ("１２。", "12"),
        (r"\boxed{\text{(C)}}", "(C)"),
        (r"12\,000", "12,000"),
        (r"\begin{pmatrix} 1 \\ -1 \end{pmatrix}", r"\begin{pmatrix} 1 \\ -1 \end{pmatrix}"),
        ("(-oo, 3) U (5, oo)", r"(-\infty , 3) \cup (5, \infty )"),
        ("x^(1/2)", "x^{1/2}"),
    ],
)
def test_all_spellings_become_one(text: str, spelling: str) -> None:
    assert normalized(text) == spelling


@given(st.text(alphabet="\\frac{}()[]$^_ sqrtxbo.0123,:%½√°", max_size=80))
def test_no_text_breaks_it(text: str) -> None:
    assert normalized(text) == normalized(text).strip()
