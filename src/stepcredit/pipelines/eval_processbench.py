"""Does a reward model find the first wrong step? ProcessBench's F1, and where its threshold comes from.

A threshold picked on the evaluated file makes the score look too good, so three are reported: one tuned on
one subset (GSM8K if it is among them) and carried over to the others, one tuned on --dev, and each file's
own best, labelled oracle.
"""

from __future__ import annotations

from dataclasses import dataclass

from stepcredit.errors import UserError
from stepcredit.options import option
from stepcredit.pipelines.eval_steps import LabelledInputs, StepResultOutput, read_parts, write_outputs
from stepcredit.runs import locked


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit eval processbench``."""

    inputs: LabelledInputs
    format: str = option("format of the data", default="processbench", metavar="FORMAT")
    tune_on: str | None = option(
        "name of the data set on which the carried-over threshold is tuned; default is the one "
        "with gsm8k in its name",
        default=None,
        metavar="NAME",
    )


def run(options: Options) -> StepResultOutput:
    """Evaluate."""
    from stepcredit.evaluation.step_evaluations import evaluate_steps

    inputs = options.inputs
    with locked(inputs.out):
        parts = read_parts(inputs, options.format)
        tune_on = _tune_on(options, [part.name for part in parts.reported])
        evaluation = evaluate_steps(
            parts, tune_on=tune_on, with_published=True, draws=inputs.draws, seed=inputs.seed
        )
        settings = {"tune_on": tune_on, "format": options.format}
        write_outputs(inputs, "eval processbench", evaluation, settings)
    return StepResultOutput(evaluation)


def _tune_on(options: Options, names: list[str]) -> str | None:
    if options.tune_on is None:
        return next((name for name in names if "gsm8k" in name.lower()), None)
    if options.tune_on not in names:
        raise UserError(
            f"there is no data named {options.tune_on!r}", where="--tune-on", hint=f"use {', '.join(names)}"
        )
    return options.tune_on
