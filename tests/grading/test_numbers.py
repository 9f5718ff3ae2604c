from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.grading.numbers import (
    Number,
    counted_number,
    number_text,
    number_value,
    plain_number,
    read_number,
    same_number,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", Fraction(18)),
        ("-18", Fraction(-18)),
        ("−18", Fraction(-18)),
        ("+3", Fraction(3)),
        ("1,234,567.50", Fraction(2469135, 2)),
        ("007", Fraction(7)),
        (".5", Fraction(1, 2)),
        ("-.5", Fraction(-1, 2)),
        ("5.", Fraction(5)),
        ("12,34", None),
        ("1,2", None),
        ("1/2", None),
        ("", None),
        ("-", None),
        ("5 cm", None),
        ("１２", Fraction(12)),
        ("1" * 2001, None),
    ],
)
def test_plain_numbers(text: str, value: Fraction | None) -> None:
    assert plain_number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$5", Fraction(5)),
        ("1/2", Fraction(1, 2)),
        ("-3/4", Fraction(-3, 4)),
        ("1/2/3", None),
        ("1/0", None),
        (r"\frac{3}{}", None),
        (r"\frac{}{3}", None),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac{1}{2}", Fraction(-1, 2)),
        ("10%", Fraction(1, 10)),
        (r"12.5\%", Fraction(1, 8)),
        ("1.8 billion", Fraction(1_800_000_000)),
        ("2 Dozen", Fraction(24)),
        ("12 000", Fraction(12000)),
        ("12 00", None),
        ("2e-3", Fraction(1, 500)),
        (r"1.8 \times 10^{5}", Fraction(180000)),
        ("x", None),
        ("three", Fraction(3)),
        ("threefold", None),
        ("1 3/4", Fraction(7, 4)),
        ("-1½", Fraction(-3, 2)),
        ("1 7/4", None),
        (r"0.\overline{3}", Fraction(1, 3)),
        ("0.1(6)", Fraction(1, 6)),
        (r"0.1\dot{4}2\dot{7}", Fraction(1426, 9990)),
        ("0.1212...", Fraction(4, 33)),
        ("5 x 10^3", Fraction(5000)),
        ("10^{-2}", Fraction(1, 100)),
        ("€5", Fraction(5)),
    ],
)
def test_numbers_as_people_write_them(text: str, value: Fraction | None) -> None:
    assert number_value(text) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(18), "18"),
        (Fraction(-5, 2), "-2.5"),
        (Fraction(1, 3), "1/3"),
        (Fraction(-2, 6), "-1/3"),
        (Fraction(7, 100), "0.07"),
        (Fraction(0), "0"),
        (Fraction(100), "100"),
    ],
)
def test_a_value_has_one_text(value: Fraction, text: str) -> None:
    assert number_text(value) == text


@given(st.fractions(max_denominator=10**6).filter(lambda value: abs(value) < 10**12))
def test_the_text_of_a_number_is_that_number(value: Fraction) -> None:
    assert number_value(number_text(value)) == value


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=6))
def test_decimals_have_their_exact_value(value: object) -> None:
    assert plain_number(f"{value:f}") == Fraction(str(value))


THIRD, PI = Number(Fraction(1, 3)), Number(Fraction(314159265358979323846, 10**20), irrational=True)


@pytest.mark.parametrize(
    ("written", "exact", "same"),
    [
        ("0.333333", THIRD, True),
        ("0.33333", THIRD, False),
        ("0.333334", THIRD, False),
        ("3.14159", PI, True),
        ("3.1416", PI, False),
        ("3.14159...", PI, True),
        ("123456.7", Number(Fraction(1234568, 10)), False),
        ("0.0000001", Number(Fraction(2, 10**7)), False),
        ("0", Number(Fraction(1, 10**30)), False),
        ("0.30000000000000004", Number(Fraction(3, 10)), True),
        ("0.3000000001", Number(Fraction(3, 10)), False),
    ],
)
def test_rounded_decimals_stand_for_longer_numbers_from_six_digits_on(
    written: str, exact: Number, same: bool
) -> None:
    number = read_number(written.replace("...", r"\ldots"))
    assert number is not None
    assert same_number(number, exact) == same_number(exact, number) == same


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("26 apples", Fraction(26)),
        ("$1,250.50", Fraction(2501, 2)),
        ("3 square feet", Fraction(3)),
        ("5 or 6", None),
        ("5%", None),
        ("apples", None),
    ],
)
def test_numbers_count_without_their_unit(text: str, value: Fraction | None) -> None:
    number = counted_number(text)
    assert (None if number is None else number.value) == value
