from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as some

from stepcredit.stats import student_quantile
from stepcredit_study.frame.seeds import Seeds, all_of, estimate, few_seeds, is_above, is_below
from stepcredit_study.pages.finding import Estimate, Verdict, format_estimate


def test_an_estimate_worked_out_by_hand() -> None:
    """Of 1, 2, 3, 4, 5: mean 3, variance 2.5, so 2.776 * sqrt(2.5 / 5) = 1.963 to each side."""
    result = estimate([1, 2, 3, 4, 5])
    assert (result.mean, result.values) == (3, (1, 2, 3, 4, 5))
    assert result.low == pytest.approx(3 - 1.963, abs=1e-3)
    assert result.high == pytest.approx(3 + 1.963, abs=1e-3)


@given(some.lists(some.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_an_estimate_is_what_the_standard_library_gives(values: list[float]) -> None:
    result = estimate(values)
    reach = student_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    assert result.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert result.low == pytest.approx(result.mean - reach, abs=1e-6)
    assert result.high == pytest.approx(result.mean + reach, abs=1e-6)


def test_one_seed_has_no_interval_and_decides_nothing() -> None:
    result = estimate([0.7])
    assert (result.low, result.high) == (None, None)
    assert is_above(result) == is_below(result, 1.0) == "undecided"
    assert format_estimate(result) == "70.0"


def test_a_page_says_how_many_seeds_there_are_where_they_are_few() -> None:
    said = [few_seeds(Seeds([{"gain": 0.1}] * count)) for count in (1, 2, 5)]
    assert said == [" (on 1 seed, without an interval, so that nothing is decided)", " (on 2 seeds)", ""]


def test_differences_are_taken_within_a_seed() -> None:
    """Seeds differ by far more than the methods; the difference is the same in each."""
    seeds = Seeds([{"a": 0.1 * n + 0.05, "b": 0.1 * n} for n in range(5)])
    gain = seeds.difference("a", "b")
    assert gain.low == pytest.approx(0.05)
    assert is_above(gain) == "holds"
    apart = seeds.of("a")
    assert apart.low is not None
    assert apart.low < seeds.of("b").mean


def test_anything_is_derived_seed_by_seed() -> None:
    seeds = Seeds([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}])
    assert seeds.derived(lambda one: one["a"] * one["b"]).values == (2.0, 12.0)
    assert "a" in seeds
    assert "c" not in seeds
    with pytest.raises(KeyError):
        seeds.of("c")


def between(low: float, high: float) -> Estimate:
    return Estimate(mean=(low + high) / 2, low=low, high=high, values=())


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.01, 0.03, "holds", "does not hold"),
        (-0.03, -0.01, "does not hold", "holds"),
        (-0.01, 0.03, "undecided", "undecided"),
        (0.0, 0.03, "undecided", "undecided"),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, above: Verdict, below: Verdict) -> None:
    assert is_above(between(low, high)) == above
    assert is_below(between(low, high)) == below


def test_no_gain_means_less_than_the_margin() -> None:
    assert is_below(between(-0.01, 0.01), 0.02) == "holds"
    assert is_below(between(-0.01, 0.03), 0.02) == "undecided"
    assert is_below(between(0.03, 0.04), 0.02) == "does not hold"


def test_one_part_that_fails_fails_the_claim() -> None:
    assert all_of(["holds", "holds"]) == "holds"
    assert all_of(["holds", "undecided"]) == "undecided"
    assert all_of(["undecided", "does not hold", "holds"]) == "does not hold"
    assert all_of(["holds", "not measured"]) == "not measured"


def test_an_estimate_in_words() -> None:
    assert format_estimate(between(0.38, 0.444)) == "41.2 [38.0, 44.4]"
    assert format_estimate(between(0.01, 0.03), sign=True) == "+2.0 [+1.0, +3.0]"
    assert format_estimate(between(-1.5, 2.5), percent=False, digits=2, sign=True) == "+0.50 [-1.50, +2.50]"
