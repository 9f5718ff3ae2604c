"""Does a reward model find the first wrong step? ProcessBench's F1, with thresholds named.

A threshold picked on the evaluated file flatters the score, so three are reported: the one tuned on one
subset (GSM8K where it is there) and carried over to the others, the one tuned on --dev, and each file's
own best, labelled oracle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepcredit.errors import UserError
from stepcredit.options import option
from stepcredit.pipelines.labelled_inputs import (
    LabelledInputs,
    Part,
    StepResultOutput,
    dev_steps,
    diagnostics,
    read_parts,
    write_outputs,
)

if TYPE_CHECKING:
    from stepcredit.evaluation.labelled_steps import LabelledSteps, StepQuantity


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit eval processbench``."""

    inputs: LabelledInputs
    format: str = option("format of the data", default="processbench", metavar="FORMAT")
    tune_on: str | None = option(
        "name of the data to tune the carried-over threshold on; default is the one with gsm8k in its name",
        default=None,
        metavar="NAME",
    )


def run(options: Options) -> StepResultOutput:
    """Evaluate."""
    from stepcredit.evaluation.error_finding import best_threshold, threshold_ranges
    from stepcredit.evaluation.step_results import (
        Context,
        StepEvaluation,
        error_finding_rows,
        mean_rows,
        published_grid_row,
        quantities,
        step_counts,
        step_rows,
    )

    inputs = options.inputs
    every, excluded = read_parts(inputs, options.format)
    parts, development = dev_steps(inputs, every)
    joined = {part.name: dict(part.joined()) for part in parts}
    tuned_on = _tuned_on(options, parts)
    rows, details, counts = [], {}, {}
    for subset, scorers in joined.items():
        for scorer, steps in scorers.items():
            context = Context(subset, scorer, inputs.draws, inputs.seed)
            counts[subset] = step_counts(steps)
            for reason, count in steps.excluded.items():
                excluded[f"{reason} ({subset}, {scorer})"] = count
            for quantity in quantities(steps):
                thresholds = _thresholds(joined, scorer, quantity, tuned_on)
                if scorer in development:
                    ranges = threshold_ranges(development[scorer], quantity)
                    thresholds[f"tuned on {inputs.dev}"] = best_threshold(ranges)
                rows += error_finding_rows(context, steps, quantity, thresholds)
                rows.append(published_grid_row(context, steps, quantity))
                found, detail = step_rows(context, steps, quantity)
                rows += found
                details[f"{subset}/{scorer}/{quantity}"] = detail
    rows += mean_rows(rows, "f1")
    notes = (
        ()
        if tuned_on is None
        else (f"a threshold tuned on {tuned_on} is an oracle threshold on {tuned_on} itself",)
    )
    details |= diagnostics(parts, joined)
    evaluation = StepEvaluation(
        results=tuple(rows), details=details, counts=counts, excluded=excluded, notes=notes
    )
    write_outputs(inputs, "eval processbench", evaluation, {"tune_on": tuned_on, "format": options.format})
    return StepResultOutput(evaluation)


def _tuned_on(options: Options, parts: Sequence[Part]) -> str | None:
    names = [part.name for part in parts]
    if options.tune_on is not None:
        if options.tune_on not in names:
            raise UserError(
                f"there is no data named {options.tune_on!r}",
                where="--tune-on",
                hint=f"use {', '.join(names)}",
            )
        return options.tune_on
    return next((name for name in names if "gsm8k" in name.lower()), None)


def _thresholds(
    joined: Mapping[str, Mapping[str, LabelledSteps]],
    scorer: str,
    quantity: StepQuantity,
    tuned_on: str | None,
) -> dict[str, float]:
    from stepcredit.evaluation.error_finding import best_threshold, threshold_ranges

    found = {"fixed: 0": 0.0}
    if tuned_on is not None and scorer in joined[tuned_on]:
        found[f"tuned on {tuned_on}"] = best_threshold(threshold_ranges(joined[tuned_on][scorer], quantity))
    return found
