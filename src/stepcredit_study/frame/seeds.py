"""Measurements of several seeds, their means, intervals and differences, and verdicts on them.

A seed redraws problems, responses and training, so seeds are independent repetitions of the whole
experiment. Intervals are Student's over seeds: they hold for the variance of problems and that of
training together. Differences are taken within each seed, on the same problems and responses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stepcredit.stats import student_quantile
from stepcredit_study.pages.finding import Estimate, Verdict

Measurement = Mapping[str, float]
"""What one seed gave: names such as ``mid/implicit-ce/best-of-16`` to numbers."""

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Seeds:
    """The measurements of all seeds.

    Attributes:
        measurements: One a seed.
    """

    measurements: Sequence[Measurement]

    def __contains__(self, name: str) -> bool:
        return all(name in each for each in self.measurements)

    def of(self, name: str) -> Estimate:
        """A measured quantity.

        Raises:
            KeyError: Some seed did not measure it.
        """
        return estimate([each[name] for each in self.measurements])

    def get(self, name: str) -> Estimate | None:
        """A quantity that not every run measures."""
        return self.of(name) if name in self else None

    def difference(self, first: str, second: str) -> Estimate:
        """The first less the second, seed by seed."""
        return estimate([each[first] - each[second] for each in self.measurements])

    def named_by_others(
        self, name: Callable[[Seeds], str], formula: Callable[[Measurement, str], float]
    ) -> Estimate:
        """A number that depends on which of several things is largest, or least.

        For each seed the other seeds say which: picking the largest of noisy numbers would favour it. The
        values of the seeds then depend on each other a little, so that the interval is approximate.

        Args:
            name: Which it is, by some seeds.
            formula: The number, from one seed's measurement and that name.
        """
        values = []
        for place, each in enumerate(self.measurements):
            rest = [other for number, other in enumerate(self.measurements) if number != place]
            values.append(formula(each, name(Seeds(rest or self.measurements))))
        return estimate(values)

    def derived(self, formula: Callable[[Measurement], float]) -> Estimate:
        """Anything that is computed from one seed's measurement."""
        return estimate([formula(each) for each in self.measurements])


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of independent values with Student's 95% interval.

    Args:
        values: At least one; with one there is no interval.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Estimate(mean=mean, values=tuple(values))
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    reach = student_quantile(count - 1) * math.sqrt(variance / count)
    return Estimate(mean=mean, low=mean - reach, high=mean + reach, values=tuple(values))


def is_above(found: Estimate, bound: float = 0.0) -> Verdict:
    """Whether a quantity is above ``bound``: the claim holds if the whole interval is."""
    if found.low is None or found.high is None:
        return "undecided"
    if found.low > bound:
        return "holds"
    return "does not hold" if found.high < bound else "undecided"


def is_below(found: Estimate, bound: float = 0.0) -> Verdict:
    """Whether a quantity is below ``bound``."""
    if found.low is None or found.high is None:
        return "undecided"
    if found.high < bound:
        return "holds"
    return "does not hold" if found.low > bound else "undecided"


def is_no_gain(found: Estimate, margin: float = 0.02) -> Verdict:
    """Whether a gain, if any, is smaller than ``margin``: the claim that something does not help."""
    return is_below(found, margin)


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a claim with several parts: one that fails fails it."""
    worst_first: tuple[Verdict, ...] = ("does not hold", "undecided", "not measured", "holds")
    return min(verdicts, key=worst_first.index, default="holds")
