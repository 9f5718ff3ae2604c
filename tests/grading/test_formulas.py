from __future__ import annotations

import math

import pytest

from stepcredit.grading.formulas import constant, parsed, proportion, same_expression
from stepcredit.grading.notation import normalized


@pytest.mark.parametrize(
    "text",
    ["2(", "2 3", "5 apples", "x if x", r"5\ldots", "x mod 7", "", r"\sin x^\circ"],
)
def test_what_the_parser_does_not_take_whole_is_not_read(text: str) -> None:
    assert parsed(normalized(text)) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2(3)", 6.0),
        ("(2)(3)", 6.0),
        (r"3(\frac{1}{2})", 1.5),
        (r"2\frac{1}{3}", 7 / 3),
        (r"\sin 30^\circ", 0.5),
        ("i^2", -1.0),
        (r"e^{i\pi}", -1.0),
        (r"\log_2 8", 3.0),
        (r"\log 1000", 3.0),
        ("2^0.5", math.sqrt(2)),
        (r"\int_0^1 x\,dx", 0.5),
        (r"\sum_{k=1}^{4} k", 10.0),
        ("1 + 1/e", 1 + math.exp(-1)),
        (r"\sqrt{3+2\sqrt2}-\sqrt2", 1.0),
        (r"\sqrt{2}+\sqrt{3}-\sqrt{5+2\sqrt{6}}", 0.0),
        (r"\binom52", 10.0),
    ],
)
def test_constants_have_the_value_that_plain_floating_point_gives(text: str, value: float) -> None:
    number = constant(parsed(normalized(text)))
    assert number is not None
    assert math.isclose(number.value, value, rel_tol=1e-12, abs_tol=1e-30)


@pytest.mark.parametrize("text", ["x", r"\infty", "3+4i", r"\frac{1}{0}", r"\begin{pmatrix}1\end{pmatrix}"])
def test_what_is_no_real_number_has_no_value(text: str) -> None:
    assert constant(parsed(normalized(text))) is None


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (r"e^{\pi\sqrt{163}}", "262537412640768744", False),
        (r"\frac{x}{2006!}", r"\frac{x}{2004!}", False),
        (r"\sqrt{x^2}", "x", False),
        (r"\sqrt{x^2}", "|x|", True),
        (r"\ln(x^2)", r"2\ln x", True),
        ("f(x+1)", "f(x)", False),
        ("a(b+c)", "ab+ac", True),
        (r"\begin{pmatrix}1&x\end{pmatrix}+\begin{pmatrix}0&1\end{pmatrix}", "x", False),
        (r"\lim_{n\to\infty}(1+\frac{1}{n})^n", "e", True),
    ],
)
def test_expressions_are_the_same_if_their_values_are(first: str, second: str, same: bool) -> None:
    expressions = parsed(normalized(first)), parsed(normalized(second))
    assert same_expression(*expressions) == same_expression(*expressions[::-1]) == same


@pytest.mark.parametrize(
    ("first", "second", "sign"), [("2x+2y", "x+y", 1), ("-x", "2x", -1), ("x", "x^2", 0), ("x", "y", 0)]
)
def test_multiples_have_a_constant_of_proportion(first: str, second: str, sign: int) -> None:
    assert proportion(parsed(first), parsed(second)) == sign
