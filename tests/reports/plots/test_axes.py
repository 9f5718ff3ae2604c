from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.reports.plots import Axis
from stepcredit.reports.plots.axes import round_ticks

FINITE = st.floats(-1e12, 1e12, allow_nan=False)


def test_a_linear_scale_maps_its_ends_to_the_edges() -> None:
    scale = Axis(label="x", low=0.0, high=1.0).scale((), 40, 240)
    assert [scale(value) for value in (0.0, 0.25, 1.0)] == [40, 90, 240]
    assert scale.ticks == pytest.approx((0, 0.2, 0.4, 0.6, 0.8, 1.0))


def test_on_a_log_scale_equal_factors_are_equal_distances() -> None:
    scale = Axis(label="n", log2=True).scale((1, 64), 0, 60)
    assert [scale(2.0**power) for power in range(7)] == pytest.approx([0, 10, 20, 30, 40, 50, 60])
    assert scale.ticks == (1, 2, 4, 8, 16, 32, 64)


def test_a_log_scale_leaves_out_what_it_cannot_show() -> None:
    assert Axis(label="n", log2=True).scale((0, -3, 4, 16), 0, 1).low == 4


def test_given_ends_are_kept_and_data_beyond_them_is_still_inside() -> None:
    scale = Axis(label="x", low=0.0, high=1.0).scale((1.3,), 0, 100)
    assert scale.low == 0
    assert scale(1.3) <= 100


def test_the_last_tick_is_there_in_spite_of_rounding() -> None:
    assert Axis(label="AUC", low=0.5, high=1.0).scale((), 0, 1).ticks[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("values", [(), (3.0,), (math.nan, math.inf), (0.0, 0.0)])
@pytest.mark.parametrize("log2", [False, True])
def test_too_little_data_still_gives_a_scale(values: tuple[float, ...], log2: bool) -> None:
    scale = Axis(label="x", log2=log2).scale(values, 0, 100)
    assert scale.low < scale.high
    assert scale.ticks


@given(st.lists(FINITE, min_size=1, max_size=5))
def test_every_value_and_tick_lies_inside(values: list[float]) -> None:
    scale = Axis(label="x").scale(values, 10, 110)
    for value in (*values, *scale.ticks):
        assert 10 - 1e-6 <= scale(value) <= 110 + 1e-6
    assert 2 <= len(scale.ticks) <= 12


@given(FINITE, st.floats(1e-6, 1e6))
def test_ticks_are_round_steps_apart(low: float, width: float) -> None:
    high = low + width
    if high - low < 1e-9 * abs(low):
        return
    ticks = round_ticks(low, high)
    steps = [later - earlier for earlier, later in pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps), abs=1e-9 * max(1.0, abs(low)))


@pytest.mark.parametrize(
    ("axis", "value", "text"),
    [
        (Axis(label="x"), 0.12345, "0.123"),
        (Axis(label="x"), -3.0, "−3"),
        (Axis(label="x"), 0.00001, "1.0e−05"),
        (Axis(label="x", decimals=1), 1234.56, "1,234.6"),
        (Axis(label="x", percent=True), 0.8849, "88.5%"),
    ],
)
def test_values_are_written_for_readers(axis: Axis, value: float, text: str) -> None:
    assert axis.write(value) == text


@pytest.mark.parametrize(
    ("tick", "text"), [(0.5, "0.5"), (-2.0, "−2"), (64, "64"), (20_000, "20k"), (3e9, "3G"), (2e15, "2e+15")]
)
def test_ticks_are_short(tick: float, text: str) -> None:
    assert Axis(label="x").write_tick(tick) == text
