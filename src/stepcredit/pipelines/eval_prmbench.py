"""Can a reward model tell right steps from wrong ones of nine kinds? PRMBench's PRMScore by category.

The threshold on the probability that a step is right is 0.5, as published; with --dev or --dev-fraction
also one tuned on rows that are not reported; and each category's own best, labelled oracle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stepcredit.errors import UserError
from stepcredit.options import option
from stepcredit.pipelines.labelled_inputs import (
    LabelledInputs,
    StepResultOutput,
    dev_steps,
    diagnostics,
    read_parts,
    write_outputs,
)

if TYPE_CHECKING:
    from stepcredit.types import Rollout

PUBLISHED_THRESHOLD = 0.5

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


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit eval prmbench``."""

    inputs: LabelledInputs
    dev_fraction: float | None = option(
        "tune a threshold on this share of the rows, by the hash of their question, and report the others",
        default=None,
    )


def run(options: Options) -> StepResultOutput:
    """Evaluate."""
    from stepcredit.evaluation.prm_bench import evaluate_prm_bench

    fraction = options.dev_fraction
    if fraction is not None and not 0.0 < fraction < 1.0:
        raise UserError(f"{fraction:g} is not between 0 and 1", where="--dev-fraction")
    every, excluded = read_parts(options.inputs, "prmbench")
    parts, development = dev_steps(options.inputs, every)
    joined = {part.name: dict(part.joined()) for part in parts}
    evaluation = evaluate_prm_bench(
        [(part.name, category_of(part.rollouts), list(joined[part.name].items())) for part in parts],
        aspects=ASPECTS,
        published_threshold=PUBLISHED_THRESHOLD,
        dev_fraction=fraction,
        development=(str(options.inputs.dev), development),
        draws=options.inputs.draws,
        seed=options.inputs.seed,
        excluded=excluded,
    )
    evaluation = replace(evaluation, details={**evaluation.details, **diagnostics(parts, joined)})
    write_outputs(options.inputs, "eval prmbench", evaluation, {"dev_fraction": fraction})
    return StepResultOutput(evaluation)


def category_of(rollouts: Iterable[Rollout]) -> dict[str, str]:
    """Rollout id to the category that its row names."""
    return {each.id: str(each.extras.get("classification") or "unnamed") for each in rollouts}
