"""``eval steps`` and ``eval processbench`` from labelled and scored steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stepcredit.evaluation.error_finding import best_threshold, threshold_ranges
from stepcredit.evaluation.labelled_data import LabelledParts
from stepcredit.evaluation.labelled_steps import LabelledSteps, StepQuantity
from stepcredit.evaluation.remarks import interval_remarks
from stepcredit.evaluation.step_results import (
    Context,
    StepEvaluation,
    StepResult,
    error_finding_rows,
    mean_rows,
    published_grid_row,
    quantities,
    step_counts,
    step_rows,
)


def evaluate_steps(
    parts: LabelledParts,
    *,
    tune_on: str | None = None,
    with_published: bool = False,
    draws: int = 10_000,
    seed: int = 0,
) -> StepEvaluation:
    """Separation, localisation, calibration, and the accuracy of finding the first error.

    Args:
        tune_on: The part whose best threshold is carried over to the others.
        with_published: Also the published evaluator's threshold, and means over the parts.
    """
    parts = parts.on_one_scale()
    rows: list[StepResult] = []
    details, counts = {}, {}
    carried = next((part.steps for part in parts.reported if part.name == tune_on), {})
    for part in parts.reported:
        for scorer, steps in part.steps.items():
            context = Context(part.name, scorer, draws, seed)
            counts[part.name] = step_counts(steps)
            for quantity in quantities(steps):
                # 0 is where an implicit reward says that a step neither helps nor harms.
                thresholds = {"fixed: 0": 0.0}
                if scorer in carried:
                    thresholds[f"tuned on {tune_on}"] = _best(carried[scorer], quantity)
                if scorer in parts.development:
                    best = _best(parts.development[scorer], quantity)
                    thresholds[f"tuned on {parts.development_source}"] = best
                measured, detail = step_rows(context, steps, quantity)
                rows += measured
                rows += error_finding_rows(context, steps, quantity, thresholds)
                if with_published:
                    rows.append(published_grid_row(context, steps, quantity))
                details[f"{part.name}/{scorer}/{quantity}"] = detail
    if with_published:
        rows += mean_rows(rows, "f1")
    for part in parts.reported:
        details |= part.diagnostics()
    notes = [*step_remarks(counts, rows), *_error_remarks(counts)]
    if tune_on is not None:
        notes.append(f"a threshold tuned on {tune_on} is an oracle threshold on {tune_on} itself")
    return StepEvaluation(
        results=tuple(rows), details=details, counts=counts, excluded=parts.left_out(), notes=tuple(notes)
    )


def step_remarks(counts: dict[str, dict[str, int]], rows: list[StepResult]) -> Iterator[str]:
    """What intervals over the problems of each part cannot show."""
    problems = {subset: numbers["problems"] for subset, numbers in counts.items()}
    yield from interval_remarks(problems, [(row.low, row.high) for row in rows if np.isfinite(row.value)])


def _error_remarks(counts: dict[str, dict[str, int]]) -> Iterator[str]:
    for subset, numbers in counts.items():
        if numbers["responses_with_error"] == 0:
            yield f"{subset}: no response has an error, so there is no F1 and no AUC"
        elif numbers["responses_with_error"] == numbers["responses"]:
            yield f"{subset}: every response has an error, so there is no F1"


def _best(steps: LabelledSteps, quantity: StepQuantity) -> float:
    return best_threshold(threshold_ranges(steps, quantity))
