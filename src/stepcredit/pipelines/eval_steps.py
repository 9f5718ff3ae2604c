"""Do step rewards tell wrong steps from right ones, in any step-labelled data?

AUC and average precision over all labelled steps; first wrong steps against the right ones before them;
how often the lowest reward is the first wrong step, or the last step; calibration; and the accuracy of
finding the first error with a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

from stepcredit.options import option
from stepcredit.pipelines.labelled_inputs import LabelledInputs, StepResultOutput, read_parts, write_outputs


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit eval steps``."""

    inputs: LabelledInputs
    format: str = option(
        "format of the data: rollouts (with step_labels), prm800k, math-shepherd, bigbench-mistake, "
        "processbench or prmbench",
        default="rollouts",
        metavar="FORMAT",
    )


def run(options: Options) -> StepResultOutput:
    """Evaluate."""
    from stepcredit.evaluation.step_results import (
        Context,
        StepEvaluation,
        error_finding_rows,
        quantities,
        step_counts,
        step_rows,
    )

    parts, excluded = read_parts(options.inputs, options.format)
    rows, details, counts = [], {}, {}
    for part in parts:
        for scorer, steps in part.joined():
            context = Context(part.name, scorer, options.inputs.draws, options.inputs.seed)
            counts[part.name] = step_counts(steps)
            for reason, count in steps.excluded.items():
                excluded[f"{reason} ({part.name}, {scorer})"] = count
            for quantity in quantities(steps):
                found, detail = step_rows(context, steps, quantity)
                rows += found
                rows += error_finding_rows(context, steps, quantity, {"fixed: 0": 0.0})
                details[f"{part.name}/{scorer}/{quantity}"] = detail
    evaluation = StepEvaluation(results=tuple(rows), details=details, counts=counts, excluded=excluded)
    write_outputs(options.inputs, "eval steps", evaluation, {"format": options.format})
    return StepResultOutput(evaluation)
