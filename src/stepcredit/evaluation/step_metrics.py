"""Do step scores tell wrong steps from right ones, and can they be believed as probabilities?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from stepcredit.evaluation.labelled_steps import LabelledSteps, StepQuantity
from stepcredit.evaluation.localisation import clustered_auc
from stepcredit.stats import (
    Interval,
    ProblemBootstrap,
    Reliability,
    average_precision,
    reliability,
    sigmoid,
)

_MOST_PRECISION_DRAWS = 1000
_CELLS_AT_ONCE = 4_000_000
_NUM_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """Over all labelled steps, those after a first error included; intervals draw problems again.

    Attributes:
        quantity: ``reward`` or ``value``.
        auc: Wrong steps (low scores) against right ones.
        average_precision: Of finding wrong steps by low scores; chance gives their share.
        calibration_error: Expected calibration error of the probability that a step is right.
        calibration: The bins behind it.
        num_steps: Labelled steps.
        num_wrong: Of them, wrong ones.
    """

    quantity: StepQuantity
    auc: Interval
    average_precision: Interval
    calibration_error: Interval
    calibration: Reliability
    num_steps: int
    num_wrong: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepVerdicts:
    """How well a threshold tells wrong steps from right ones (PRMBench, arXiv:2501.03124).

    Attributes:
        threshold: A step is called wrong where the probability that it is right is not above this.
        threshold_from: Where the threshold was chosen.
        positive_f1: F1 of finding right steps.
        negative_f1: F1 of finding wrong steps.
        prm_score: Mean of the two.
        num_right: Right steps.
        num_wrong: Wrong steps.
    """

    threshold: float
    threshold_from: str
    positive_f1: Interval
    negative_f1: Interval
    prm_score: Interval
    num_right: int
    num_wrong: int


def step_probabilities(scores: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """Scores as probabilities of being right: as they are if all lie in [0, 1], else their sigmoid."""
    if len(scores) and scores.min() >= 0.0 and scores.max() <= 1.0:
        return scores
    return sigmoid(scores)


def measure_steps(
    steps: LabelledSteps, quantity: StepQuantity, *, bootstrap: ProblemBootstrap | None = None
) -> StepMetrics:
    """Separation and calibration of step scores."""
    bootstrap = bootstrap or ProblemBootstrap(steps.num_clusters)
    labelled = steps.labelled
    scores, wrong = steps.scores(quantity)[labelled], steps.wrong[labelled]
    clusters = steps.cluster_of_step[labelled]
    probabilities = step_probabilities(steps.scores(quantity))[labelled]
    bins = reliability(probabilities, ~wrong, _NUM_BINS)
    precision = average_precision(-scores, wrong)
    return StepMetrics(
        quantity=quantity,
        auc=clustered_auc(-scores, wrong, ~wrong, clusters, bootstrap),
        average_precision=Interval(
            precision,
            *bootstrap.quantiles(
                _drawn_precision(-scores, wrong, clusters, bootstrap),
                np.bincount(clusters, wrong, bootstrap.num_problems),
            ),
        ),
        calibration_error=Interval(
            bins.error,
            *bootstrap.quantiles(drawn_calibration_error(probabilities, ~wrong, clusters, bootstrap)),
        ),
        calibration=bins,
        num_steps=len(scores),
        num_wrong=int(wrong.sum()),
    )


def _drawn_precision(
    scores: Float[np.ndarray, " steps"],
    positive: Bool[np.ndarray, " steps"],
    clusters: Int[np.ndarray, " steps"],
    bootstrap: ProblemBootstrap,
) -> NDArray[np.float64]:
    """Average precision in each draw: the steps are sorted once, each draw gives them weights."""
    order = np.argsort(-scores, kind="stable")
    scores, positive, clusters = scores[order], positive[order], clusters[order]
    ends_tie = np.append(scores[1:] != scores[:-1], True)
    draws = min(bootstrap.num_draws, _MOST_PRECISION_DRAWS)
    at_once = max(1, _CELLS_AT_ONCE // max(len(scores), 1))
    drawn = []
    for start in range(0, draws, at_once):
        weights = bootstrap.counts(start, min(start + at_once, draws))[clusters].astype(np.float64)
        taken = np.cumsum(weights, axis=0)[ends_tie]
        found = np.cumsum(weights * positive[:, None], axis=0)[ends_tie]
        gained = np.diff(found, axis=0, prepend=0.0)
        with np.errstate(invalid="ignore"):
            precision = np.where(taken > 0.0, found / taken, 0.0)
            drawn.append((gained * precision).sum(axis=0) / found[-1])
    return np.concatenate(drawn)


def drawn_calibration_error(
    probabilities: Float[np.ndarray, " items"],
    outcomes: Bool[np.ndarray, " items"],
    clusters: Int[np.ndarray, " items"],
    bootstrap: ProblemBootstrap,
) -> NDArray[np.float64]:
    """Expected calibration error in each draw."""
    which = np.minimum((probabilities * _NUM_BINS).astype(int), _NUM_BINS - 1)
    size = bootstrap.num_problems
    gap, number = np.zeros(bootstrap.num_draws), np.zeros(bootstrap.num_draws)
    for index in range(_NUM_BINS):
        here = which == index
        if here.any():
            difference = np.bincount(clusters[here], probabilities[here] - outcomes[here], size)
            drawn = bootstrap.means(np.stack([difference, np.bincount(clusters[here], minlength=size)]))
            gap += np.abs(drawn[0])
            number += drawn[1]
    with np.errstate(invalid="ignore"):
        return np.asarray(gap / number)


def judge_steps(
    steps: LabelledSteps,
    quantity: StepQuantity,
    threshold: float,
    threshold_from: str,
    *,
    bootstrap: ProblemBootstrap | None = None,
) -> StepVerdicts:
    """F1 of both kinds of steps, and their mean, at a threshold on the probability of being right."""
    bootstrap = bootstrap or ProblemBootstrap(steps.num_clusters)
    labelled = steps.labelled
    called_right = (step_probabilities(steps.scores(quantity)) > threshold)[labelled]
    right, clusters = ~steps.wrong[labelled], steps.cluster_of_step[labelled]
    size = bootstrap.num_problems
    cells = np.stack(
        [
            np.bincount(clusters, first & second, size)
            for first in (right, ~right)
            for second in (called_right, ~called_right)
        ]
    )
    estimates = _verdict_f1s(cells.sum(axis=1, keepdims=True))
    drawn = _verdict_f1s(bootstrap.means(cells))
    kinds = cells[0] + cells[1], cells[2] + cells[3]
    needed = *([kind] for kind in kinds), [kind for kind in kinds if kind.any()]
    intervals = [
        Interval(float(estimate[0]), *bootstrap.quantiles(values, *needs))
        for estimate, values, needs in zip(estimates, drawn, needed, strict=True)
    ]
    return StepVerdicts(
        threshold=threshold,
        threshold_from=threshold_from,
        positive_f1=intervals[0],
        negative_f1=intervals[1],
        prm_score=intervals[2],
        num_right=int(right.sum()),
        num_wrong=int((~right).sum()),
    )


def _verdict_f1s(cells: Float[np.ndarray, "four draws"]) -> Float[np.ndarray, "three draws"]:
    """F1 of right steps, of wrong steps, and their mean; a kind that is not there has none."""
    right_kept, right_lost, wrong_kept, wrong_lost = cells
    found = []
    for hit, missed, false in ((right_kept, right_lost, wrong_kept), (wrong_lost, wrong_kept, right_lost)):
        total = 2.0 * hit + missed + false
        with np.errstate(invalid="ignore"):
            found.append(np.where(hit + missed > 0.0, 2.0 * hit / total, np.nan))
    both = np.where(np.isnan(found[0]), found[1], np.where(np.isnan(found[1]), found[0], sum(found) / 2.0))
    return np.stack([*found, both])


def best_verdict_threshold(steps: LabelledSteps, quantity: StepQuantity) -> float:
    """The threshold with the best PRMScore on these steps, exactly; the middle between two scores."""
    labelled = steps.labelled
    probabilities = step_probabilities(steps.scores(quantity))[labelled]
    wrong = steps.wrong[labelled]
    levels, which = np.unique(probabilities, return_inverse=True)
    wrong_at = np.bincount(which, wrong, len(levels))
    right_at = np.bincount(which, ~wrong, len(levels))
    # Candidate k calls the k lowest levels wrong.
    wrong_lost = np.concatenate([[0.0], np.cumsum(wrong_at)])
    right_lost = np.concatenate([[0.0], np.cumsum(right_at)])
    cells = np.stack([right_at.sum() - right_lost, right_lost, wrong_at.sum() - wrong_lost, wrong_lost])
    best = int(np.nanargmax(_verdict_f1s(cells)[2]))
    edges = np.concatenate([[min(levels[0], 0.0)], levels, [max(levels[-1], 1.0)]])
    if best == 0:
        return float(np.nextafter(edges[0], -np.inf))
    return float(edges[best] + edges[best + 1]) / 2.0 if best < len(levels) else float(edges[-1])
