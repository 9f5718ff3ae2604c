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
from stepcredit.wording import quantity as counted
from stepcredit_study.pages.finding import Estimate, Verdict

Measurement = Mapping[str, float]
"""What one seed gave: names such as ``mid/implicit-ce/best-of-16`` to numbers."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """The measurements of all seeds, one each."""

    measurements: Sequence[Measurement]

    def __contains__(self, name: str) -> bool:
        return all(name in numbers for numbers in self.measurements)

    def of(self, name: str) -> Estimate:
        """A measured quantity.

        Raises:
            KeyError: Some seed did not measure it.
        """
        return estimate([numbers[name] for numbers in self.measurements])

    def get(self, name: str) -> Estimate | None:
        """A quantity that not every run measures."""
        return self.of(name) if name in self else None

    def difference(self, first: str, second: str) -> Estimate:
        """The first minus the second, seed by seed."""
        return estimate([numbers[first] - numbers[second] for numbers in self.measurements])

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
        for place, numbers in enumerate(self.measurements):
            rest = [other for number, other in enumerate(self.measurements) if number != place]
            values.append(formula(numbers, name(Seeds(rest or self.measurements))))
        return estimate(values)

    def derived(self, formula: Callable[[Measurement], float]) -> Estimate:
        """Anything that is computed from one seed's measurement."""
        return estimate([formula(numbers) for numbers in self.measurements])


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


def few_seeds(seeds: Seeds) -> str:
    """How many seeds there are, where that is fewer than five: the end of a sentence."""
    count = len(seeds.measurements)
    if count >= 5:
        return ""
    undecided = ", without an interval, so that nothing is decided" if count == 1 else ""
    return f" (on {counted(count, 'seed')}{undecided})"


def is_above(quantity: Estimate, bound: float = 0.0) -> Verdict:
    """Whether a quantity is above ``bound``: the claim holds if the whole interval is."""
    if quantity.low is None or quantity.high is None:
        return "undecided"
    if quantity.low > bound:
        return "holds"
    return "does not hold" if quantity.high < bound else "undecided"


def is_below(quantity: Estimate, bound: float = 0.0) -> Verdict:
    """Whether a quantity is below ``bound``, such as a gain below the least that counts as one."""
    opposites: Mapping[Verdict, Verdict] = {"holds": "does not hold", "does not hold": "holds"}
    above = is_above(quantity, bound)
    return opposites.get(above, above)


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a claim with several parts: one that fails fails it."""
    worst_first: tuple[Verdict, ...] = ("does not hold", "undecided", "not measured", "holds")
    return min(verdicts, key=worst_first.index, default="holds")
