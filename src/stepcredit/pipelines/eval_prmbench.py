"""Can a reward model distinguish right steps from nine kinds of wrong steps? PRMBench's PRMScore by category.

The threshold on the probability that a step is right is 0.5, as published. Also reported are a threshold
tuned on rows that are not reported (with --dev or --dev-fraction), and each category's own best one,
labelled oracle.
"""

from __future__ import annotations

from dataclasses import dataclass

from stepcredit.errors import UserError
from stepcredit.options import option
from stepcredit.pipelines.eval_steps import LabelledInputs, StepResultOutput, read_parts, write_outputs
from stepcredit.runs import locked


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit eval prmbench``."""

    inputs: LabelledInputs
    aspects: str = option(
        "how an aspect is scored: published takes the mean over its categories, as in PRMBench's "
        "table; pooled counts all of its steps together",
        default="published",
        choices=("published", "pooled"),
    )
    dev_fraction: float | None = option(
        "tune a threshold on this share of the rows (by the hash of their question) and report the others",
        default=None,
    )


def run(options: Options) -> StepResultOutput:
    """Evaluate."""
    from stepcredit.evaluation.prm_bench import evaluate_prm_bench

    fraction = options.dev_fraction
    if fraction is not None and not 0.0 < fraction < 1.0:
        raise UserError(f"must be between 0 and 1, got {fraction:g}", where="--dev-fraction")
    with locked(options.inputs.out):
        evaluation = evaluate_prm_bench(
            read_parts(options.inputs, "prmbench"),
            aspect_scores=options.aspects,
            dev_fraction=fraction,
            draws=options.inputs.draws,
            seed=options.inputs.seed,
        )
        settings = {"dev_fraction": fraction, "aspects": options.aspects}
        write_outputs(options.inputs, "eval prmbench", evaluation, settings)
    return StepResultOutput(evaluation)
