"""Percentile bootstrap over problems, for many methods at once.

Responses to one problem are not independent, problems are; so problems are what is drawn again. One set of
draws serves all methods, which keeps comparisons paired. A single problem does not show how much problems
differ: then there is no interval, and its ends are NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer, Shaped

# Parts that keep the tables of draws within tens of megabytes.
_METHODS_AT_ONCE = 256
_DRAWS_AT_ONCE = 1024

_LEVELS = ((1.0 - 0.95) / 2.0, (1.0 + 0.95) / 2.0)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval; the ends are NaN where there is none."""

    estimate: float
    low: float
    high: float


class ProblemBootstrap:
    """Draws problems with replacement, once, and gives the 95% intervals of any means over them.

    Args:
        num_problems: At least 1.
    """

    def __init__(self, num_problems: int, *, num_draws: int = 10_000, seed: int = 0) -> None:
        if num_problems < 1:
            raise ValueError("the bootstrap needs at least one problem")
        self.num_problems, self.num_draws = num_problems, num_draws
        self._counts = _draw_counts(num_problems, num_draws, np.random.default_rng(seed))

    def means(self, values: Float[np.ndarray, "methods problems"]) -> Float[np.ndarray, "methods draws"]:
        """Mean of each method in each draw."""
        values = np.asarray(values, dtype=np.float64)
        means = np.empty((len(values), self.num_draws))
        for start in range(0, self.num_draws, _DRAWS_AT_ONCE):
            part = slice(start, start + _DRAWS_AT_ONCE)
            means[:, part] = values @ self._counts[:, part].astype(np.float64)
        means /= self.num_problems
        return means

    def counts(self, start: int, stop: int) -> Integer[np.ndarray, "problems draws"]:
        """How often each problem is in the draws from ``start`` to ``stop``."""
        return np.asarray(self._counts[:, start:stop])

    def intervals(
        self, values: Float[np.ndarray, "methods problems"]
    ) -> tuple[Float[np.ndarray, " methods"], Float[np.ndarray, " methods"]]:
        """Lower and upper ends of each method's interval."""
        values = np.asarray(values, dtype=np.float64)
        low, high = np.empty(len(values)), np.empty(len(values))
        for start in range(0, len(values), _METHODS_AT_ONCE):
            part = slice(start, start + _METHODS_AT_ONCE)
            low[part], high[part] = self._ends(self.means(values[part]))
        return low, high

    def paired_intervals(
        self,
        values: Float[np.ndarray, "methods problems"],
        pairs: Int[np.ndarray, "pairs 2"],
    ) -> tuple[Float[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]]:
        """Ends of the intervals of the mean of the first method minus that of the second, for each pair."""
        means = self.means(values)
        low, high = np.empty(len(pairs)), np.empty(len(pairs))
        for start in range(0, len(pairs), _METHODS_AT_ONCE):
            first, second = np.asarray(pairs)[start : start + _METHODS_AT_ONCE].T
            part = slice(start, start + _METHODS_AT_ONCE)
            low[part], high[part] = self._ends(means[first] - means[second])
        return low, high

    def quantiles(
        self, drawn: Float[np.ndarray, " draws"], *kinds: Shaped[np.ndarray, " problems"]
    ) -> tuple[float, float]:
        """Ends of the interval of a statistic computed in each draw; draws that are NaN are left out.

        Args:
            kinds: What the statistic needs, as counts per problem: wrong steps, right steps. Where one
                problem has all of a kind there is no interval.
        """
        known = np.asarray(drawn, dtype=np.float64)
        known = known[~np.isnan(known)]
        if not len(known) or any(np.count_nonzero(kind) < 2 for kind in kinds):
            return float("nan"), float("nan")
        low, high = self._ends(known[None])
        return float(low[0]), float(high[0])

    def _ends(self, drawn: Float[np.ndarray, "methods draws"]) -> Float[np.ndarray, "2 methods"]:
        if self.num_problems < 2:
            return np.full((2, len(drawn)), np.nan)
        return np.stack(_quantiles(drawn, _LEVELS))

    def interval(self, values: Float[np.ndarray, " problems"]) -> Interval:
        """Mean of one method with its interval."""
        low, high = self.intervals(np.asarray(values)[None])
        return Interval(float(np.mean(values)), float(low[0]), float(high[0]))

    def ratio_interval(
        self, numerators: Float[np.ndarray, " problems"], denominators: Float[np.ndarray, " problems"]
    ) -> Interval:
        """Sum of numerators over sum of denominators, as for a rate over all steps of all problems.

        Draws in which no denominator is positive are left out; without any denominator all is NaN, and
        where only one problem has any there is no interval.
        """
        total = float(np.sum(denominators))
        if total <= 0.0:
            return Interval(float("nan"), float("nan"), float("nan"))
        above, below = self.means(np.stack([numerators, denominators]))
        low, high = self.quantiles(above[below > 0.0] / below[below > 0.0], denominators)
        return Interval(float(np.sum(numerators)) / total, low, high)


def _quantiles(
    draws: Float[np.ndarray, "methods draws"], levels: tuple[float, float]
) -> list[Float[np.ndarray, " methods"]]:
    """Linear quantiles of each row; reorders them in place, far faster than ``np.quantile``."""
    last = draws.shape[1] - 1
    positions = [level * last for level in levels]
    places = [(int(position), min(int(position) + 1, last)) for position in positions]
    draws.partition(sorted({place for pair in places for place in pair}), axis=1)
    return [
        draws[:, below] + (position - below) * (draws[:, above] - draws[:, below])
        for position, (below, above) in zip(positions, places, strict=True)
    ]


def _draw_counts(
    num_problems: int, num_draws: int, generator: np.random.Generator
) -> Integer[np.ndarray, "problems draws"]:
    """How often each problem is in each draw; columns sum to the number of problems."""
    # Two bytes per count keep thousands of problems in memory.
    counts = np.empty((num_problems, num_draws), dtype=np.uint16)
    for start in range(0, num_draws, _DRAWS_AT_ONCE):
        draws = min(_DRAWS_AT_ONCE, num_draws - start)
        drawn = generator.integers(num_problems, size=(draws, num_problems))
        drawn += np.arange(draws)[:, None] * num_problems
        block = np.bincount(drawn.ravel(), minlength=draws * num_problems)
        counts[:, start : start + draws] = block.reshape(draws, num_problems).T
    return counts
