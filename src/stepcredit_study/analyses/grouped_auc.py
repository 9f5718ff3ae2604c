"""AUC of positives against negatives of the same group, with an interval over problems.

A group is what scores can be compared within: one generator, or one fold whose model scored it. Only pairs
within a group count, so a score that says nothing but which group an item is from has one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from stepcredit.stats import Interval, ProblemBootstrap, auc, clustered_auc_parts

Scores = Sequence[Float[np.ndarray, " items"]]
"""Of each seed of a training; higher is better."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """Items whose scores are compared.

    Attributes:
        positive: Which class an item is of.
        problems: Index of its problem, which the bootstrap draws again.
        groups: Index of its group.
    """

    positive: Bool[np.ndarray, " items"]
    problems: Int[np.ndarray, " items"]
    groups: Int[np.ndarray, " items"]

    @classmethod
    def one(cls, positive: Bool[np.ndarray, " items"], problems: Int[np.ndarray, " items"]) -> Grouped:
        """All items in one group."""
        return cls(positive, problems, np.zeros(len(positive), dtype=np.int64))


def grouped_auc(
    items: Grouped, scores: Scores, bootstrap: ProblemBootstrap, *, minus: Scores | None = None
) -> Interval:
    """Share of the (positive, negative) pairs within a group that are in order; ties count one half.

    The mean over seeds. The bootstrap draws the linear part of each group's AUC (its Hájek projection), as
    :func:`~stepcredit.evaluation.localisation.clustered_auc` does for one group; groups weigh by their pairs.

    Args:
        scores: One array per seed.
        minus: Other scores of the same items, whose AUC is subtracted.
    """
    estimates, weights, drawn = [], [], []
    counts = np.zeros((2, bootstrap.num_problems))
    for group in np.unique(items.groups):
        here = items.groups == group
        positive, problems = items.positive[here], items.problems[here]
        pairs = int(positive.sum()) * int((~positive).sum())
        if not pairs:
            continue
        estimate, parts = _mean_parts([values[here] for values in scores], positive)
        if minus is not None:
            other, other_parts = _mean_parts([values[here] for values in minus], positive)
            estimate, parts = estimate - other, parts - other_parts
        kinds = [np.bincount(problems, kind, bootstrap.num_problems) for kind in (positive, ~positive)]
        counts += kinds
        estimates.append(estimate)
        weights.append(pairs)
        drawn.append(_draws(estimate, parts, positive, problems, bootstrap))
    if not estimates:
        return Interval(float("nan"), float("nan"), float("nan"))
    ends = bootstrap.quantiles(np.average(drawn, axis=0, weights=weights), *counts)
    least = 0.0 if minus is None else -1.0  # a linear part knows no bounds
    low, high = np.clip(ends, least, 1.0).tolist()
    return Interval(float(np.average(estimates, weights=weights)), low, high)


def _draws(
    estimate: float,
    parts: Float[np.ndarray, " items"],
    positive: Bool[np.ndarray, " items"],
    problems: Int[np.ndarray, " items"],
    bootstrap: ProblemBootstrap,
) -> Float[np.ndarray, " draws"]:
    """The group's AUC in each draw; NaN where a draw has none of a class."""
    sums = []
    for kind in (positive, ~positive):
        above = np.bincount(problems, (parts - estimate) * kind, bootstrap.num_problems)
        number = np.bincount(problems, kind, bootstrap.num_problems)
        above, number = bootstrap.means(np.stack([above, number]))
        sums.append(np.divide(above, number, out=np.full(len(above), np.nan), where=number > 0))
    drawn: Float[np.ndarray, " draws"] = estimate + sums[0] + sums[1]
    return drawn


def _mean_parts(
    scores: Scores, positive: Bool[np.ndarray, " items"]
) -> tuple[float, Float[np.ndarray, " items"]]:
    estimates = [float(auc(values, positive)) for values in scores]
    parts = [clustered_auc_parts(values, positive) for values in scores]
    return float(np.mean(estimates)), np.mean(parts, axis=0)
