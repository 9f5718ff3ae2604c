"""PRMBench: PRMScore by category, by aspect and over all (arXiv:2501.03124)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import UserError
from stepcredit.evaluation.labelled_data import LabelledParts
from stepcredit.evaluation.labelled_steps import LabelledSteps, StepQuantity
from stepcredit.evaluation.samples import in_share
from stepcredit.evaluation.step_evaluations import step_remarks
from stepcredit.evaluation.step_results import (
    ALL,
    Context,
    StepEvaluation,
    StepResult,
    quantities,
    step_counts,
    step_rows,
    verdict_rows,
)
from stepcredit.evaluation.step_verdicts import best_verdict_threshold
from stepcredit.wording import quantity as number_of

PUBLISHED_THRESHOLD = 0.5
"""On the probability that a step is right."""

ASPECTS = {
    "redundency": "simplicity",
    "circular": "simplicity",
    "counterfactual": "soundness",
    "step_contradiction": "soundness",
    "domain_inconsistency": "soundness",
    "confidence": "soundness",
    "missing_condition": "sensitivity",
    "deception": "sensitivity",
    "multi_solutions": "sensitivity",
}
"""The benchmark's categories, as its files spell them, and the aspect that each belongs to."""


@dataclass(frozen=True, slots=True)
class _Subset:
    """Steps that are reported together.

    Attributes:
        categories: Category of each response, numbered, where figures are means over categories.
    """

    steps: LabelledSteps
    categories: NDArray[np.int64] | None = None


def evaluate_prm_bench(
    parts: LabelledParts,
    *,
    aspect_scores: str = "published",
    dev_fraction: float | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> StepEvaluation:
    """PRMScore of every scorer.

    Args:
        parts: The data; rows name their category in ``classification``.
        aspect_scores: An aspect's score: ``published``, the mean over its categories, as in the published
            table, or ``pooled``, over all of its steps.
        dev_fraction: Share of the rows that a threshold is tuned on; they are not reported.

    Raises:
        UserError: The share leaves nothing on one side, or a part lacks a scorer that another has.
    """
    parts = parts.on_one_scale()
    by_scorer = _by_scorer(parts)
    rows: list[StepResult] = []
    details, counts = {}, {}
    for scorer, by_category in by_scorer.items():
        subsets, held_out = _subsets(by_category, dev_fraction, aspect_scores)
        for name, subset in subsets.items():
            context = Context(name, scorer, draws, seed)
            counts[name] = step_counts(subset.steps)
            for quantity in quantities(subset.steps):
                thresholds = _thresholds(parts, scorer, quantity, held_out, dev_fraction)
                rows += verdict_rows(context, subset.steps, quantity, thresholds, subset.categories)
                separation, detail = step_rows(context, subset.steps, quantity)
                rows += separation
                details[f"{name}/{scorer}/{quantity}"] = detail
    for part in parts.reported:
        details |= part.diagnostics()
    emptied = {category for listed in by_scorer.values() for category, _ in listed} - counts.keys()
    notes = [*step_remarks(counts, rows), *_remarks(counts, aspect_scores)]
    notes += [f"{category}: all rows are tuned on, so none is reported" for category in sorted(emptied)]
    return StepEvaluation(
        results=tuple(rows), details=details, counts=counts, excluded=parts.left_out(), notes=tuple(notes)
    )


def _by_scorer(parts: LabelledParts) -> dict[str, list[tuple[str, LabelledSteps]]]:
    """Each scorer's steps of each category of each part."""
    by_scorer: dict[str, list[tuple[str, LabelledSteps]]] = {}
    for part in parts.reported:
        categories = {row.id: str(row.extras.get("classification") or "unnamed") for row in part.rollouts}
        for scorer, steps in part.steps.items():
            for category in sorted({categories[name] for name in steps.ids}):
                mask = np.array([categories[name] == category for name in steps.ids])
                by_scorer.setdefault(scorer, []).append((category, steps.select(mask)))
    for part in parts.reported:
        lacking = sorted(by_scorer.keys() - part.steps.keys())
        if lacking:
            raise UserError(
                f"the scores of {lacking[0]!r} for {part.name!r} are missing",
                where="--scores",
                hint="give the scores of all data by every scorer",
            )
    return by_scorer


def _thresholds(
    parts: LabelledParts,
    scorer: str,
    quantity: StepQuantity,
    held_out: LabelledSteps | None,
    dev_fraction: float | None,
) -> dict[str, float]:
    thresholds = {f"fixed: {PUBLISHED_THRESHOLD:g} (published)": PUBLISHED_THRESHOLD}
    if held_out is not None:
        origin = f"tuned on {dev_fraction:g} of the rows, not reported"
        thresholds[origin] = best_verdict_threshold(held_out, quantity)
    if scorer in parts.development:
        tuned = best_verdict_threshold(parts.development[scorer], quantity)
        thresholds[f"tuned on {parts.development_source}"] = tuned
    return thresholds


def _subsets(
    by_category: Sequence[tuple[str, LabelledSteps]], dev_fraction: float | None, aspect_scores: str
) -> tuple[dict[str, _Subset], LabelledSteps | None]:
    """Reported steps by category, aspect and all together, and the steps to tune on."""
    reported, held_out = [], []
    for category, steps in by_category:
        tuning = _tuning(steps, dev_fraction)
        if not tuning.all():
            reported.append((category, steps.select(~tuning)))
        if tuning.any():
            held_out.append(steps.select(tuning))
    if dev_fraction is not None and not (reported and held_out):
        count = sum(steps.num_responses for _, steps in by_category)
        kept = count if reported else 0
        raise UserError(
            f"leaves {number_of(kept, 'row')} to report and {count - kept} to tune on",
            where="--dev-fraction",
            hint="use more rows or another fraction",
        )
    members: dict[str, list[tuple[str, LabelledSteps]]] = {}
    for category, steps in reported:
        members.setdefault(category, []).append((category, steps))
    for category, steps in reported:
        if category in ASPECTS:
            members.setdefault(ASPECTS[category], []).append((category, steps))
    subsets = {}
    for name, parts in {**members, ALL: reported}.items():
        merged = LabelledSteps.merge([steps for _, steps in parts])
        sizes = [steps.num_responses for _, steps in parts]
        numbers = np.unique([category for category, _ in parts], return_inverse=True)[1]
        by_mean = aspect_scores == "published" and name in ASPECTS.values()
        subsets[name] = _Subset(merged, np.repeat(numbers, sizes) if by_mean else None)
    return subsets, LabelledSteps.merge(held_out) if held_out else None


def _tuning(steps: LabelledSteps, dev_fraction: float | None) -> NDArray[np.bool_]:
    if dev_fraction is None:
        return np.zeros(steps.num_responses, dtype=bool)
    return np.array([in_share(steps.problem_ids[cluster], dev_fraction) for cluster in steps.clusters])


def _remarks(counts: Mapping[str, Mapping[str, int]], aspect_scores: str) -> Iterator[str]:
    without = [name for name, numbers in counts.items() if numbers["wrong_steps"] == 0]
    if without:
        yield (
            f"{', '.join(without)}: no wrong steps, so there is no negative F1 (it is not 0), and PRMScore "
            "is the F1 of right steps"
        )
    if any(name in ASPECTS.values() for name in counts):
        yield {
            "published": "an aspect's PRMScore and F1s are means over its categories, as in the published "
            "table; all other figures are computed over its steps",
            "pooled": "an aspect's PRMScore and F1s are over all of its steps; the published table has means "
            "over its categories",
        }[aspect_scores]
