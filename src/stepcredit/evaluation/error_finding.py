"""Finding the first wrong step with a threshold, as ProcessBench asks (arXiv:2412.06559)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from stepcredit.evaluation.labelled_steps import LabelledSteps, StepQuantity
from stepcredit.stats import Interval, ProblemBootstrap, f1


@dataclass(frozen=True, slots=True)
class ThresholdRange:
    """Thresholds with which the verdict on each response is right: those in ``(low, high]``.

    The verdict is the first step whose score is below the threshold, or that all are right. So it is right
    on a response with its error at step e for thresholds above the score of e and not above any score
    before it, and on a response without error for thresholds not above any score.

    Attributes:
        low: Exclusive.
        high: Inclusive; infinite where there is no step before the error.
        erroneous: Whether the response has an error.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    erroneous: NDArray[np.bool_]

    def right(self, threshold: float) -> NDArray[np.bool_]:
        """Whether the verdict on each response is right."""
        return np.asarray((self.low < threshold) & (threshold <= self.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFinding:
    """How well a threshold finds first errors; intervals draw problems again, with the threshold fixed.

    Attributes:
        error_accuracy: Share of the responses with an error whose first wrong step is found.
        correct_accuracy: Share of the responses without one that are found to be so.
        f1: Harmonic mean of the two.
    """

    error_accuracy: Interval
    correct_accuracy: Interval
    f1: Interval


def threshold_ranges(steps: LabelledSteps, quantity: StepQuantity) -> ThresholdRange:
    """For each response, the thresholds that judge it right."""
    scores = steps.scores(quantity)
    low, high = np.full(steps.num_responses, -np.inf), np.full(steps.num_responses, np.inf)
    for index, (start, stop, error) in enumerate(
        zip(steps.offsets[:-1], steps.offsets[1:], steps.first_wrong, strict=True)
    ):
        before = scores[start : stop if error < 0 else start + error]
        high[index] = before.min(initial=np.inf)
        if error >= 0:
            low[index] = scores[start + error]
    return ThresholdRange(low, high, steps.first_wrong >= 0)


def best_threshold(ranges: ThresholdRange) -> float:
    """The threshold with the best F1 on these responses, exactly.

    Accuracies change only where a range begins or ends, so the best is found among the upper ends; the
    middle of the stretch of equally good thresholds below it is returned, which carries over best.
    """
    lows = np.sort(ranges.low[np.isfinite(ranges.low)])
    highs = np.unique(ranges.high[np.isfinite(ranges.high)])
    beyond = max(lows.max(initial=-np.inf), highs.max(initial=-np.inf)) + 1.0
    candidates = np.append(highs, beyond) if np.isfinite(beyond) else np.array([0.0])
    values = _f1_at(ranges, candidates)
    best = float(candidates[int(values.argmax())])
    edges = np.concatenate([lows[lows < best], highs[highs < best]])
    return best if not len(edges) else (float(edges.max()) + best) / 2.0


def grid_threshold(probabilities: ThresholdRange) -> tuple[float, float]:
    """The first best of 2,000 thresholds from 0 to 1, with its F1, as the published evaluator does."""
    grid = np.linspace(0.0, 1.0, 2000)
    values = _f1_at(probabilities, grid)
    best = int(values.argmax())
    return float(grid[best]), float(values[best])


def _f1_at(ranges: ThresholdRange, thresholds: Float[np.ndarray, " thresholds"]) -> NDArray[np.float64]:
    accuracies = []
    for group in (ranges.erroneous, ~ranges.erroneous):
        possible = group & (ranges.low < ranges.high)
        above_low = np.searchsorted(np.sort(ranges.low[possible]), thresholds, "left")
        above_high = np.searchsorted(np.sort(ranges.high[possible]), thresholds, "left")
        accuracies.append((above_low - above_high) / max(int(group.sum()), 1))
    total = accuracies[0] + accuracies[1]
    return np.divide(2.0 * accuracies[0] * accuracies[1], total, out=np.zeros_like(total), where=total > 0)


def find_errors(
    steps: LabelledSteps,
    quantity: StepQuantity,
    threshold: float,
    *,
    bootstrap: ProblemBootstrap | None = None,
) -> ErrorFinding:
    """Accuracies and F1 of a given threshold; a step is called wrong where its score is below it."""
    bootstrap = bootstrap or ProblemBootstrap(steps.num_clusters)
    ranges = threshold_ranges(steps, quantity)
    estimates, drawn = f1_draws(steps, ranges, threshold, bootstrap)
    error, correct, both = (
        Interval(estimate, *bootstrap.quantiles(values))
        for estimate, values in zip(estimates, drawn, strict=True)
    )
    return ErrorFinding(error_accuracy=error, correct_accuracy=correct, f1=both)


def f1_draws(
    steps: LabelledSteps, ranges: ThresholdRange, threshold: float, bootstrap: ProblemBootstrap
) -> tuple[tuple[float, float, float], Float[np.ndarray, "3 draws"]]:
    """Accuracy on responses with an error, on those without, and F1: the estimates, and in each draw.

    NaN where there is no response of a kind; the draws also where all of them are of one problem.
    """
    right = ranges.right(threshold)
    size = bootstrap.num_problems
    columns = [
        np.bincount(steps.clusters, part, size)
        for group in (ranges.erroneous, ~ranges.erroneous)
        for part in (right & group, group)
    ]
    drawn = bootstrap.means(np.stack(columns))
    for kind in (1, 3):
        # One problem with all the responses of a kind does not show how much problems differ.
        if np.count_nonzero(columns[kind]) < 2:
            drawn[kind] = np.nan
    with np.errstate(invalid="ignore"):
        error, correct = drawn[0] / drawn[1], drawn[2] / drawn[3]
        both = np.where(error + correct > 0.0, 2.0 * error * correct / (error + correct), 0.0)
    both = np.where(np.isnan(error) | np.isnan(correct), np.nan, both)
    accuracies = _share(right, ranges.erroneous), _share(right, ~ranges.erroneous)
    estimate = float("nan") if np.isnan(accuracies).any() else f1(*accuracies)
    return (*accuracies, estimate), np.stack([error, correct, both])


def _share(right: NDArray[np.bool_], group: NDArray[np.bool_]) -> float:
    return float(right[group].mean()) if group.any() else float("nan")
