"""PRMBench: PRMScore by category, by aspect and over all (arXiv:2501.03124)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stepcredit.evaluation.labelled_steps import LabelledSteps
from stepcredit.evaluation.samples import in_share
from stepcredit.evaluation.step_metrics import best_verdict_threshold
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

Part = tuple[str, Mapping[str, str], Sequence[tuple[str, LabelledSteps]]]
"""Name of the data, rollout id to category, and each scorer's labelled steps."""


def evaluate_prm_bench(
    parts: Iterable[Part],
    *,
    aspects: Mapping[str, str],
    published_threshold: float,
    dev_fraction: float | None,
    development: tuple[str, Mapping[str, LabelledSteps]],
    draws: int,
    seed: int,
    excluded: Mapping[str, int],
) -> StepEvaluation:
    """PRMScore of every scorer.

    Args:
        parts: The data.
        aspects: Category to the aspect that it belongs to.
        published_threshold: On the probability that a step is right.
        dev_fraction: Share of the rows that a threshold is tuned on; they are not reported.
        development: Name of other data to tune a threshold on, and each scorer's steps of it, if any.
        draws: Bootstrap draws.
        seed: Of the draws.
        excluded: What was left out before.
    """
    left_out = dict(excluded)
    by_scorer: dict[str, list[tuple[str, LabelledSteps]]] = {}
    for name, categories, scorers in parts:
        for scorer, steps in scorers:
            for reason, count in steps.excluded.items():
                left_out[f"{reason} ({name}, {scorer})"] = count
            for category in sorted({categories[each] for each in steps.ids}):
                mask = np.array([categories[each] == category for each in steps.ids])
                by_scorer.setdefault(scorer, []).append((category, steps.select(mask)))
    rows: list[StepResult] = []
    details, counts = {}, {}
    for scorer, found in by_scorer.items():
        groups, held_out = _groups(found, aspects, dev_fraction)
        for subset, steps in groups.items():
            context = Context(subset, scorer, draws, seed)
            counts[subset] = step_counts(steps)
            for quantity in quantities(steps):
                thresholds = {f"fixed: {published_threshold:g} (published)": published_threshold}
                if held_out is not None:
                    origin = f"tuned on {dev_fraction:g} of the rows, not reported"
                    thresholds[origin] = best_verdict_threshold(held_out, quantity)
                if scorer in development[1]:
                    tuned = best_verdict_threshold(development[1][scorer], quantity)
                    thresholds[f"tuned on {development[0]}"] = tuned
                rows += verdict_rows(context, steps, quantity, thresholds)
                separation, detail = step_rows(context, steps, quantity)
                rows += separation
                details[f"{subset}/{scorer}/{quantity}"] = detail
    return StepEvaluation(results=tuple(rows), details=details, counts=counts, excluded=left_out)


def _groups(
    found: Sequence[tuple[str, LabelledSteps]], aspects: Mapping[str, str], dev_fraction: float | None
) -> tuple[dict[str, LabelledSteps], LabelledSteps | None]:
    """Reported steps by category, aspect and all together, and the steps to tune on."""
    reported, held_out = [], []
    for category, steps in found:
        tuning = _tuning(steps, dev_fraction)
        reported.append((category, steps.select(~tuning)))
        if tuning.any():
            held_out.append(steps.select(tuning))
    groups: dict[str, list[LabelledSteps]] = {}
    for category, steps in reported:
        groups.setdefault(category, []).append(steps)
    for category, steps in reported:
        if category in aspects:
            groups.setdefault(aspects[category], []).append(steps)
    groups[ALL] = [steps for _, steps in reported]
    merged = {name: LabelledSteps.merge(steps) for name, steps in groups.items()}
    return merged, LabelledSteps.merge(held_out) if held_out else None


def _tuning(steps: LabelledSteps, dev_fraction: float | None) -> NDArray[np.bool_]:
    if dev_fraction is None:
        return np.zeros(steps.num_responses, dtype=bool)
    return np.array([in_share(steps.problem_ids[cluster], dev_fraction) for cluster in steps.clusters])
