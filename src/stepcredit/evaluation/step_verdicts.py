"""How well a threshold tells wrong steps from right ones: PRMBench's PRMScore (arXiv:2501.03124).

An aspect of PRMBench has several categories. Its published table gives an aspect the mean over the scores
of its categories, and the whole benchmark one score over all steps; ``groups`` asks for such a mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from stepcredit.evaluation.labelled_steps import LabelledSteps, StepQuantity
from stepcredit.stats import Interval, ProblemBootstrap


@dataclass(frozen=True, slots=True, kw_only=True)
class StepVerdicts:
    """F1 of both kinds of steps at a threshold, of all steps or as means over groups of responses.

    Attributes:
        positive_f1: F1 of finding right steps.
        negative_f1: F1 of finding wrong steps; NaN, not 0, where there is none to find.
        prm_score: Mean of the two, or the one that there is.
    """

    positive_f1: Interval
    negative_f1: Interval
    prm_score: Interval


def judge_steps(
    steps: LabelledSteps,
    quantity: StepQuantity,
    threshold: float,
    *,
    groups: Int[np.ndarray, " responses"] | None = None,
    bootstrap: ProblemBootstrap | None = None,
) -> StepVerdicts:
    """F1 of both kinds of steps, and their mean, at a threshold on the probability of being right.

    Args:
        threshold: A step is called wrong where the probability that it is right is not above this.
        groups: Group of each response, from 0; every figure is then the mean over the groups that have it.
        bootstrap: Over ``steps.clusters``; by default 10,000 draws with seed 0.
    """
    bootstrap = bootstrap or ProblemBootstrap(steps.num_clusters)
    labelled = steps.labelled
    called_right = (steps.probabilities(quantity) > threshold)[labelled]
    right, clusters = ~steps.wrong[labelled], steps.cluster_of_step[labelled]
    group = _group_of_step(steps, groups)[labelled]
    size = bootstrap.num_problems
    cells = [
        np.stack(
            [
                np.bincount(clusters, (group == number) & kind & call, size)
                for kind in (right, ~right)
                for call in (called_right, ~called_right)
            ]
        )
        for number in range(int(group.max(initial=0)) + 1)
    ]
    estimates = _means([_verdict_f1s(counts.sum(axis=1, keepdims=True)) for counts in cells])
    drawn = _means([_verdict_f1s(bootstrap.means(counts)) for counts in cells])
    num_right, num_wrong = (np.bincount(clusters, kind, size) for kind in (right, ~right))
    needed = [num_right], [num_wrong], [kind for kind in (num_right, num_wrong) if kind.any()]
    positive, negative, both = (
        Interval(float(estimate[0]), *bootstrap.quantiles(values, *kinds))
        for estimate, values, kinds in zip(estimates, drawn, needed, strict=True)
    )
    return StepVerdicts(positive_f1=positive, negative_f1=negative, prm_score=both)


def best_verdict_threshold(
    steps: LabelledSteps, quantity: StepQuantity, groups: Int[np.ndarray, " responses"] | None = None
) -> float:
    """The threshold with the best PRMScore on these steps, exactly; the middle between two scores."""
    labelled = steps.labelled
    probabilities = steps.probabilities(quantity)[labelled]
    wrong, group = steps.wrong[labelled], _group_of_step(steps, groups)[labelled]
    levels, which = np.unique(probabilities, return_inverse=True)
    scores = []
    for number in range(int(group.max(initial=0)) + 1):
        wrong_at = np.bincount(which, wrong & (group == number), len(levels))
        right_at = np.bincount(which, ~wrong & (group == number), len(levels))
        # Candidate k calls the k lowest levels wrong.
        wrong_lost = np.concatenate([[0.0], np.cumsum(wrong_at)])
        right_lost = np.concatenate([[0.0], np.cumsum(right_at)])
        cells = [right_at.sum() - right_lost, right_lost, wrong_at.sum() - wrong_lost, wrong_lost]
        scores.append(_verdict_f1s(np.stack(cells)))
    best = int(np.nanargmax(_means(scores)[2]))
    edges = np.concatenate([[min(levels[0], 0.0)], levels, [max(levels[-1], 1.0)]])
    if best == 0:
        return float(np.nextafter(edges[0], -np.inf))
    return float(edges[best] + edges[best + 1]) / 2.0 if best < len(levels) else float(edges[-1])


def _group_of_step(
    steps: LabelledSteps, groups: Int[np.ndarray, " responses"] | None
) -> Int[np.ndarray, " steps"]:
    if groups is None:
        return np.zeros(len(steps.labels), dtype=np.int64)
    return np.asarray(groups)[steps.response_of_step]


def _verdict_f1s(cells: Float[np.ndarray, "four draws"]) -> Float[np.ndarray, "three draws"]:
    """F1 of right steps, of wrong steps, and their mean; a kind that is not there has none."""
    right_kept, right_lost, wrong_kept, wrong_lost = cells
    f1s = []
    for hit, missed, false in ((right_kept, right_lost, wrong_kept), (wrong_lost, wrong_kept, right_lost)):
        total = 2.0 * hit + missed + false
        with np.errstate(invalid="ignore"):
            f1s.append(np.where(hit + missed > 0.0, 2.0 * hit / total, np.nan))
    return np.stack([*f1s, _mean_of_known(np.stack(f1s))])


def _means(parts: list[Float[np.ndarray, "three draws"]]) -> Float[np.ndarray, "three draws"]:
    """Of each figure over the groups that have it."""
    return parts[0] if len(parts) == 1 else _mean_of_known(np.stack(parts))


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis of what is not NaN."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sum(values, axis=0, where=known) / known.sum(axis=0))
