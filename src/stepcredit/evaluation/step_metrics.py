"""Do step scores tell wrong steps from right ones, and can they be believed as probabilities?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from stepcredit.evaluation.labelled_steps import LabelledSteps, StepQuantity
from stepcredit.evaluation.localisation import clustered_auc
from stepcredit.stats import Interval, ProblemBootstrap, Reliability, average_precision, reliability

# Each draw passes over all steps, so there are fewer of them than elsewhere.
_MOST_PRECISION_DRAWS = 1000
_CELLS_AT_ONCE = 4_000_000
_NUM_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """Over all labelled steps, those after a first error included; intervals draw problems again.

    Attributes:
        auc: Wrong steps (low scores) against right ones.
        average_precision: Of finding wrong steps by low scores; chance gives their share.
        calibration_error: Expected calibration error of the probability that a step is right.
        calibration: The bins behind it.
    """

    auc: Interval
    average_precision: Interval
    calibration_error: Interval
    calibration: Reliability


def measure_steps(
    steps: LabelledSteps, quantity: StepQuantity, *, bootstrap: ProblemBootstrap | None = None
) -> StepMetrics:
    """Separation and calibration of step scores."""
    bootstrap = bootstrap or ProblemBootstrap(steps.num_clusters)
    labelled = steps.labelled
    scores, wrong = steps.scores(quantity)[labelled], steps.wrong[labelled]
    clusters = steps.cluster_of_step[labelled]
    probabilities = steps.probabilities(quantity)[labelled]
    bins = reliability(probabilities, ~wrong, _NUM_BINS)
    precision = average_precision(-scores, wrong)
    return StepMetrics(
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
        hits = np.cumsum(weights * positive[:, None], axis=0)[ends_tie]
        gained = np.diff(hits, axis=0, prepend=0.0)
        with np.errstate(invalid="ignore"):
            precision = np.where(taken > 0.0, hits / taken, 0.0)
            drawn.append((gained * precision).sum(axis=0) / hits[-1])
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
