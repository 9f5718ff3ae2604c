"""Does a score order right before wrong among the responses to one problem, and is it more than length?

All statistics are sums over problems, so that one bootstrap over problems serves estimates and paired
differences. Shape legend: arrays of one value per response, and of one value per problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from stepcredit.stats import Interval, ProblemBootstrap


@dataclass(frozen=True, slots=True)
class Pairs:
    """(right, wrong) pairs of responses to the same problem.

    Attributes:
        ordered: Of each problem, pairs whose right response has the higher score; ties count one half.
        total: Of each problem, pairs in all.
    """

    ordered: Float[np.ndarray, " problems"]
    total: Float[np.ndarray, " problems"]


def centred(
    values: Float[np.ndarray, " responses"], problems: Int[np.ndarray, " responses"]
) -> Float[np.ndarray, " responses"]:
    """Each value minus the mean of its problem."""
    counts = np.bincount(problems)
    means = np.bincount(problems, weights=values) / np.maximum(counts, 1)
    deviations: Float[np.ndarray, " responses"] = values - means[problems]
    return deviations


def without_length(
    scores: Float[np.ndarray, " responses"],
    lengths: Float[np.ndarray, " responses"],
    problems: Int[np.ndarray, " responses"],
) -> Float[np.ndarray, " responses"]:
    """What is left of centred scores when one line through all problems' centred lengths is removed.

    Args:
        scores: Higher is better.
        lengths: Tokens.
        problems: Index of each response's problem, from 0.
    """
    score, length = centred(scores, problems), centred(lengths, problems)
    spread = float(length @ length)
    slope = float(length @ score) / spread if spread > 0 else 0.0
    residuals: Float[np.ndarray, " responses"] = score - slope * length
    return residuals


def count_pairs(
    scores: Float[np.ndarray, " responses"],
    right: Bool[np.ndarray, " responses"],
    problems: Int[np.ndarray, " responses"],
    num_problems: int,
) -> Pairs:
    """Pairs of each problem; equal scores are those within 1e-9 of the problem's largest magnitude."""
    ordered, total = np.zeros(num_problems), np.zeros(num_problems)
    for problem in range(num_problems):
        here = problems == problem
        above, below = scores[here & right], scores[here & ~right]
        total[problem] = len(above) * len(below)
        if total[problem]:
            difference = above[:, None] - below[None, :]
            tied = np.abs(difference) <= 1e-9 * np.abs(scores[here]).max()
            ordered[problem] = np.sum((difference > 0) & ~tied) + 0.5 * np.sum(tied)
    return Pairs(ordered, total)


def pooled_auc(pairs: Sequence[Pairs], bootstrap: ProblemBootstrap) -> Interval:
    """Share of the pairs that are in order; of several seeds' pairs the mean."""
    return bootstrap.ratio_interval(_mean_ordered(pairs), pairs[0].total)


def auc_difference(first: Sequence[Pairs], second: Sequence[Pairs], bootstrap: ProblemBootstrap) -> Interval:
    """AUC of the first minus that of the second, paired by problem, on the same responses."""
    assert np.array_equal(first[0].total, second[0].total), "both score the same responses"
    return bootstrap.ratio_interval(_mean_ordered(first) - _mean_ordered(second), first[0].total)


def _mean_ordered(pairs: Sequence[Pairs]) -> Float[np.ndarray, " problems"]:
    mean: Float[np.ndarray, " problems"] = np.mean([seed.ordered for seed in pairs], axis=0)
    return mean


def as_list(interval: Interval) -> list[float] | None:
    """``[estimate, low, high]``, or ``None`` where there is nothing to estimate, or no interval."""
    values = [interval.estimate, interval.low, interval.high]
    return None if np.isnan(values).any() else values
