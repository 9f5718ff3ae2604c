from __future__ import annotations

from fractions import Fraction

import pytest

from stepcredit.grading.units import read_unit


@pytest.mark.parametrize(
    ("text", "factor", "dimensions"),
    [
        ("cm", Fraction(1, 100), (("length", 1),)),
        ("inches", Fraction(254, 10000), (("length", 1),)),
        ("m/s^2", Fraction(1), (("length", 1), ("time", -2))),
        ("km per hour", Fraction(5, 18), (("length", 1), ("time", -1))),
        ("square feet", Fraction(3048, 10000) ** 2, (("length", 2),)),
        ("sq. ft.", Fraction(3048, 10000) ** 2, (("length", 2),)),
        ("mL", Fraction(1, 10**6), (("length", 3),)),
        ("cents", Fraction(1, 100), (("dollar", 1),)),
        ("red apples", Fraction(1), (("label:appl", 1), ("label:red", 1))),
    ],
)
def test_units_have_a_factor_and_dimensions(
    text: str, factor: Fraction, dimensions: tuple[tuple[str, int], ...]
) -> None:
    unit = read_unit(text)
    assert unit is not None
    assert (unit.factor, unit.dimensions) == (factor, dimensions)


@pytest.mark.parametrize(
    "text", ["", "or 5", "and a half", "x", "squared", "more than that", "5", "if x > 0"]
)
def test_what_is_no_unit_is_none(text: str) -> None:
    assert read_unit(text) is None


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [
        ("cm", "inches", True),
        ("cm", "cm^2", False),
        ("liters", "cm^3", True),
        ("apples", "apple", True),
        ("red apples", "apples", True),
        ("apples", "pears", False),
        ("apples", "cm", False),
        ("boxes", "box", True),
    ],
)
def test_units_agree_if_amounts_can_be_compared(first: str, second: str, agree: bool) -> None:
    one, other = read_unit(first), read_unit(second)
    assert one is not None
    assert other is not None
    assert one.agrees(other) == other.agrees(one) == agree


def test_a_letter_right_behind_a_number_may_be_a_factor() -> None:
    attached, apart = read_unit("m", attached=True), read_unit("m")
    assert attached is not None
    assert apart is not None
    assert (attached.doubtful, apart.doubtful) == (True, False)
    assert read_unit("x", attached=True) is None
