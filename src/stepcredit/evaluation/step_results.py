"""Figures of the step evaluations as rows: one metric of one scorer on one part of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.evaluation.error_finding import best_threshold, find_errors, grid_threshold, threshold_ranges
from stepcredit.evaluation.labelled_steps import LabelledSteps, StepQuantity
from stepcredit.evaluation.localisation import localise
from stepcredit.evaluation.results import plain
from stepcredit.evaluation.step_metrics import measure_steps
from stepcredit.evaluation.step_verdicts import best_verdict_threshold, judge_steps
from stepcredit.stats import Interval, ProblemBootstrap

ALL = "all"
"""The part that holds every response."""

MEAN_OF_SUBSETS = "mean of subsets"
"""Stands for the plain mean over all parts."""


METRIC_NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "first_error_auc": "first-error AUC",
    "lowest_is_first_wrong": "lowest is first wrong",
    "minimum_is_last": "lowest is last",
    "calibration_error": "calibration error",
    "f1": "F1",
    "error_accuracy": "accuracy with error",
    "correct_accuracy": "accuracy without error",
    "prm_score": "PRMScore",
    "positive_f1": "F1 of right steps",
    "negative_f1": "F1 of wrong steps",
}
"""How tables name a metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One figure.

    Attributes:
        quantity: ``reward`` (each step by itself) or ``value`` (the prefix up to it).
        value: The figure; NaN where the data cannot tell.
        low: Lower end of its 95% interval.
        threshold: What scores were compared with, if the metric needs one.
        threshold_from: Where that was chosen.
    """

    subset: str
    scorer: str
    quantity: str
    metric: str
    value: float
    low: float
    high: float
    threshold: float | None = None
    threshold_from: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvaluation:
    """What a step evaluation found.

    Attributes:
        details: What does not fit a row: ``SUBSET/SCORER/QUANTITY`` to calibration bins and AUC by position,
            ``SUBSET/SCORER`` to correlations and failures.
        counts: Subset to numbers of responses, steps and errors.
    """

    results: tuple[StepResult, ...]
    details: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    excluded: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-able values, unrounded."""
        values: dict[str, Any] = plain(self)
        return values


@dataclass(frozen=True, slots=True)
class Context:
    """What a row is about, and how its interval is drawn."""

    subset: str
    scorer: str
    draws: int = 10_000
    seed: int = 0

    def bootstrap(self, steps: LabelledSteps) -> ProblemBootstrap:
        """Over the problems of ``steps``."""
        return ProblemBootstrap(steps.num_clusters, num_draws=self.draws, seed=self.seed)

    def row(
        self,
        quantity: str,
        metric: str,
        interval: Interval,
        threshold: float | None = None,
        threshold_from: str | None = None,
    ) -> StepResult:
        """A figure as a row."""
        return StepResult(
            subset=self.subset,
            scorer=self.scorer,
            quantity=quantity,
            metric=metric,
            value=interval.estimate,
            low=interval.low,
            high=interval.high,
            threshold=threshold,
            threshold_from=threshold_from,
        )


def quantities(steps: LabelledSteps) -> tuple[StepQuantity, ...]:
    """``reward``, and ``value`` too where it is something else."""
    return ("reward",) if np.array_equal(steps.rewards, steps.values) else ("reward", "value")


def error_finding_rows(
    context: Context, steps: LabelledSteps, quantity: StepQuantity, thresholds: Mapping[str, float]
) -> list[StepResult]:
    """F1 and its two accuracies at each threshold, the file's own best one and the published one included.

    Args:
        thresholds: Where a threshold was chosen to the threshold.
    """
    bootstrap = context.bootstrap(steps)
    ranges = threshold_ranges(steps, quantity)
    chosen = {**thresholds, "this file (oracle threshold)": best_threshold(ranges)}
    rows = []
    for origin, threshold in chosen.items():
        finding = find_errors(steps, quantity, threshold, bootstrap=bootstrap)
        for metric, interval in (
            ("f1", finding.f1),
            ("error_accuracy", finding.error_accuracy),
            ("correct_accuracy", finding.correct_accuracy),
        ):
            rows.append(context.row(quantity, metric, interval, threshold, origin))
    return rows


def published_grid_row(context: Context, steps: LabelledSteps, quantity: StepQuantity) -> StepResult:
    """The published evaluator's figure: best of 2,000 thresholds on the sigmoid, on the very same file."""
    scores = steps.probabilities(quantity)
    # The published evaluator lays its grid over probabilities, so rewards are squeezed into [0, 1] first.
    squeezed = replace(steps, rewards=scores, values=scores)
    threshold, _ = grid_threshold(threshold_ranges(squeezed, "reward"))
    origin = "this file (oracle threshold, published grid)"
    finding = find_errors(squeezed, "reward", threshold, bootstrap=context.bootstrap(steps))
    return context.row(quantity, "f1", finding.f1, threshold, origin)


def mean_rows(rows: Sequence[StepResult], metric: str) -> list[StepResult]:
    """Plain mean of a metric over subsets, as benchmarks report it, for each scorer and threshold origin.

    Its interval treats the subsets as independent: half-widths add up as squares.
    """
    groups: dict[tuple[str, str, str | None], list[StepResult]] = {}
    for row in rows:
        if row.metric == metric:
            groups.setdefault((row.scorer, row.quantity, row.threshold_from), []).append(row)
    widest = max((len(group) for group in groups.values()), default=0)
    means = []
    for (scorer, quantity, origin), group in groups.items():
        if len(group) < 2 or len(group) < widest:
            continue
        mean = float(np.mean([row.value for row in group]))
        below = float(np.sqrt(np.sum([(row.value - row.low) ** 2 for row in group]))) / len(group)
        above = float(np.sqrt(np.sum([(row.high - row.value) ** 2 for row in group]))) / len(group)
        means.append(
            StepResult(
                subset=MEAN_OF_SUBSETS,
                scorer=scorer,
                quantity=quantity,
                metric=metric,
                value=mean,
                low=mean - below,
                high=mean + above,
                threshold_from=origin,
            )
        )
    return means


def verdict_rows(
    context: Context,
    steps: LabelledSteps,
    quantity: StepQuantity,
    thresholds: Mapping[str, float],
    groups: NDArray[np.int64] | None = None,
) -> list[StepResult]:
    """PRMScore and its two F1s at each threshold, the file's own best one included.

    Args:
        thresholds: Where a threshold was chosen to the threshold.
        groups: Group of each response; figures are then means over groups.
    """
    bootstrap = context.bootstrap(steps)
    best = best_verdict_threshold(steps, quantity, groups)
    rows = []
    for origin, threshold in {**thresholds, "these rows (oracle threshold)": best}.items():
        verdicts = judge_steps(steps, quantity, threshold, groups=groups, bootstrap=bootstrap)
        for metric, interval in (
            ("prm_score", verdicts.prm_score),
            ("positive_f1", verdicts.positive_f1),
            ("negative_f1", verdicts.negative_f1),
        ):
            rows.append(context.row(quantity, metric, interval, threshold, origin))
    return rows


def step_rows(
    context: Context, steps: LabelledSteps, quantity: StepQuantity
) -> tuple[list[StepResult], dict[str, Any]]:
    """Separation, localisation and calibration, with what does not fit a row."""
    bootstrap = context.bootstrap(steps)
    measured = measure_steps(steps, quantity, bootstrap=bootstrap)
    place = localise(steps, quantity, bootstrap=bootstrap)
    rows = [
        context.row(quantity, metric, interval)
        for metric, interval in (
            ("auc", measured.auc),
            ("average_precision", measured.average_precision),
            ("first_error_auc", place.auc),
            ("lowest_is_first_wrong", place.lowest_is_first_wrong),
            ("minimum_is_last", place.minimum_is_last),
            ("calibration_error", measured.calibration_error),
        )
    ]
    return rows, {"calibration": plain(measured.calibration), "by_position": plain(place.by_position)}


def step_counts(steps: LabelledSteps) -> dict[str, int]:
    """How much data there is."""
    return {
        "problems": steps.num_clusters,
        "responses": steps.num_responses,
        "responses_with_error": int((steps.first_wrong >= 0).sum()),
        "labelled_steps": int(steps.labelled.sum()),
        "wrong_steps": int(steps.wrong.sum()),
    }
