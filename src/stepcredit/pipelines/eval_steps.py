"""Do step rewards tell wrong steps from right ones, in any step-labelled data?

AUC and average precision over all labelled steps; first wrong steps against the right ones before them;
how often the lowest reward is the first wrong step, or the last step; calibration; and the accuracy of
finding the first error with a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

from stepcredit.options import option
from stepcredit.pipelines.labelled_inputs import (
    LabelledInputs,
    StepResultOutput,
    dev_steps,
    diagnostics,
    read_parts,
    write_outputs,
)


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
    from stepcredit.evaluation.error_finding import best_threshold, threshold_ranges
    from stepcredit.evaluation.step_results import (
        Context,
        StepEvaluation,
        error_finding_rows,
        quantities,
        step_counts,
        step_rows,
    )

    every, excluded = read_parts(options.inputs, options.format)
    parts, development = dev_steps(options.inputs, every)
    rows, details, counts = [], {}, {}
    joined = {part.name: dict(part.joined()) for part in parts}
    for part in parts:
        for scorer, steps in joined[part.name].items():
            context = Context(part.name, scorer, options.inputs.draws, options.inputs.seed)
            counts[part.name] = step_counts(steps)
            for reason, count in steps.excluded.items():
                excluded[f"{reason} ({part.name}, {scorer})"] = count
            for quantity in quantities(steps):
                found, detail = step_rows(context, steps, quantity)
                rows += found
                thresholds = {"fixed: 0": 0.0}
                if scorer in development:
                    ranges = threshold_ranges(development[scorer], quantity)
                    thresholds[f"tuned on {options.inputs.dev}"] = best_threshold(ranges)
                rows += error_finding_rows(context, steps, quantity, thresholds)
                details[f"{part.name}/{scorer}/{quantity}"] = detail
    details |= diagnostics(parts, joined)
    evaluation = StepEvaluation(results=tuple(rows), details=details, counts=counts, excluded=excluded)
    write_outputs(options.inputs, "eval steps", evaluation, {"format": options.format})
    return StepResultOutput(evaluation)
