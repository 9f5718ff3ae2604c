"""Do step rewards find the first wrong step?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from stepcredit.evaluation.labelled_steps import LabelledSteps, StepQuantity
from stepcredit.stats import Interval, ProblemBootstrap, auc, clustered_auc_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Steps at one place of their responses.

    Attributes:
        index: From 0.
        num_right: Right steps before any error.
        auc: Of one against the other; NaN without both.
    """

    index: int
    num_right: int
    num_first_wrong: int
    auc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Localisation:
    """Whether low scores mark the first wrong step. Intervals draw problems again.

    Attributes:
        auc: Area under the ROC curve: first wrong steps (low) against right steps before any error.
        lowest_is_first_wrong: Share of the responses with a wrong step whose lowest score is at the first
            wrong one; of steps that share the lowest score each counts equally.
        minimum_is_last: Share of the responses of two steps or more whose lowest score is at the last
            step; ties as above.
        num_right_steps: Right steps before any error.
        num_first_wrong_steps: First wrong steps: responses with a wrong step.
        by_position: The same by place in the response.
    """

    auc: Interval
    lowest_is_first_wrong: Interval
    minimum_is_last: Interval
    num_right_steps: int
    num_first_wrong_steps: int
    by_position: tuple[Position, ...]


def localise(
    steps: LabelledSteps, quantity: StepQuantity = "reward", *, bootstrap: ProblemBootstrap | None = None
) -> Localisation:
    """Measure how well scores find the first wrong step.

    Args:
        bootstrap: Over ``steps.clusters``; by default 10,000 draws with seed 0.
    """
    scores = steps.scores(quantity)
    bootstrap = bootstrap or ProblemBootstrap(steps.num_clusters)
    right, first_wrong = first_error_classes(steps)
    lowest = shares_of_minimum(scores, steps.offsets)
    with_error = steps.first_wrong >= 0
    at_error = np.zeros(steps.num_responses)
    at_error[with_error] = lowest[steps.offsets[:-1][with_error] + steps.first_wrong[with_error]]
    at_last, several = minimum_at_last(scores, steps.offsets)
    return Localisation(
        auc=clustered_auc(-scores, first_wrong, right, steps.cluster_of_step, bootstrap),
        lowest_is_first_wrong=clustered_share(at_error, with_error, steps.clusters, bootstrap),
        minimum_is_last=clustered_share(at_last, several, steps.clusters, bootstrap),
        num_right_steps=int(right.sum()),
        num_first_wrong_steps=int(first_wrong.sum()),
        by_position=_by_position(steps, scores, right, first_wrong),
    )


def first_error_classes(steps: LabelledSteps) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks over steps: right ones before any error, and first wrong ones; what follows is in neither."""
    first = steps.first_wrong[steps.response_of_step]
    position = steps.position_of_step
    before = (first < 0) | (position < first)
    return np.asarray(before & steps.labelled), np.asarray(position == first)


def shares_of_minimum(
    scores: Float[np.ndarray, " steps"], offsets: Int[np.ndarray, " bounds"]
) -> Float[np.ndarray, " steps"]:
    """1 at the lowest score of each response and 0 elsewhere; steps that share the lowest share the 1."""
    sizes = np.diff(offsets)
    filled = sizes > 0
    starts = offsets[:-1][filled]
    if not len(starts):
        return np.zeros(len(scores))
    lowest = np.repeat(np.minimum.reduceat(scores, starts), sizes[filled])
    at_lowest = scores == lowest
    tied = np.repeat(np.add.reduceat(at_lowest, starts, dtype=np.int64), sizes[filled])
    return np.asarray(at_lowest / tied)


def minimum_at_last(
    scores: Float[np.ndarray, " steps"], offsets: Int[np.ndarray, " bounds"]
) -> tuple[Float[np.ndarray, " responses"], Bool[np.ndarray, " responses"]]:
    """How far each response's lowest score is its last step's, and which responses have several steps.

    A reward that depends on the last step alone makes the minimum over steps an outcome reward in disguise
    (arXiv:2501.07301).
    """
    lowest = shares_of_minimum(scores, offsets)
    several = np.diff(offsets) > 1
    at_last = np.zeros(len(several))
    at_last[several] = lowest[offsets[1:][several] - 1]
    return at_last, several


def clustered_share(
    hits: Float[np.ndarray, " items"],
    counted: Bool[np.ndarray, " items"],
    clusters: Int[np.ndarray, " items"],
    bootstrap: ProblemBootstrap,
) -> Interval:
    """Mean of ``hits`` over the items that count, with an interval over clusters."""
    size = bootstrap.num_problems
    return bootstrap.ratio_interval(
        np.bincount(clusters, hits * counted, size), np.bincount(clusters, counted, size)
    )


def clustered_auc(
    scores: Float[np.ndarray, " items"],
    positive: Bool[np.ndarray, " items"],
    negative: Bool[np.ndarray, " items"],
    clusters: Int[np.ndarray, " items"],
    bootstrap: ProblemBootstrap,
) -> Interval:
    """AUC of positives against negatives, with an interval over clusters.

    The bootstrap draws the AUC's linear part (its Hájek projection: each item's share of the other class
    that it is on the right side of), which costs no sorting in each draw.
    """
    used = positive | negative
    estimate = auc(scores[used], positive[used])
    if np.isnan(estimate):
        return Interval(estimate, estimate, estimate)
    parts = np.zeros(len(scores))
    parts[used] = clustered_auc_parts(scores[used], positive[used]) - estimate
    size = bootstrap.num_problems
    num_positive, num_negative = (np.bincount(clusters, kind, size) for kind in (positive, negative))
    sums = bootstrap.means(
        np.stack(
            [
                np.bincount(clusters, parts * positive, size),
                num_positive,
                np.bincount(clusters, parts * negative, size),
                num_negative,
            ]
        )
    )
    usable = (sums[1] > 0) & (sums[3] > 0)
    drawn = estimate + sums[0][usable] / sums[1][usable] + sums[2][usable] / sums[3][usable]
    low, high = bootstrap.quantiles(drawn, num_positive, num_negative)
    return Interval(estimate, *np.clip([low, high], 0.0, 1.0).tolist())


def _by_position(
    steps: LabelledSteps,
    scores: NDArray[np.float64],
    right: NDArray[np.bool_],
    first_wrong: NDArray[np.bool_],
) -> tuple[Position, ...]:
    position = steps.position_of_step
    places = []
    for index in range(int(position.max(initial=-1)) + 1):
        here = (position == index) & (right | first_wrong)
        if here.any():
            places.append(
                Position(
                    index=index,
                    num_right=int((here & right).sum()),
                    num_first_wrong=int((here & first_wrong).sum()),
                    auc=auc(-scores[here], first_wrong[here]),
                )
            )
    return tuple(places)
