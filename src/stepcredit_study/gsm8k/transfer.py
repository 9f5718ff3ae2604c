"""Transfer: reward models, untouched, on data of other worlds.

Purpose: does what a reward model learned from its own policy's responses order other models' recorded
solutions, and find other people's labelled wrong steps? It may well fail; then that is what is reported.

Recorded solutions: AUC within a generator and within a problem with length regressed out, beside shortness
and the reference's log-probability, and the best of four. BIG-Bench-Mistake and PRMBench rows: AUC of first
wrong steps against right steps before them. A model that was trained on the recorded solutions themselves
is one more ``--prm``.

Run: python -m stepcredit_study.gsm8k.transfer --prm NAME=DIR [--prm ...] --reference MODEL --out DIR
     [--solutions SOLUTIONS.jsonl] [--mistakes MISTAKES.jsonl] [--prmbench FILE ...]
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stepcredit.errors import UserError
from stepcredit.pipelines import eval_best_of_n, eval_steps, grade, score
from stepcredit.pipelines.driver import Store
from stepcredit.reports.summary import REPORTED
from stepcredit.runs import write_json
from stepcredit_study.frame.world import reference_scores
from stepcredit_study.gsm8k.fold_results import Fold, evaluate

REFERENCE: Final = "reference"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is scored by what.

    Attributes:
        prms: Name to reward model.
        reference: The untrained model, whose log-probability is the control.
        solutions: Rollouts of GSM8K problems by several models, with ``policy``.
        mistakes: Rows of BIG-Bench-Mistake.
        prmbench: Files of PRMBench's rows, one for each kind of error.
    """

    prms: Mapping[str, Path]
    reference: Path
    out: Path
    solutions: Path | None = None
    mistakes: Path | None = None
    prmbench: tuple[Path, ...] = ()


def run(options: Options) -> dict[str, Any]:
    """Score and evaluate what is given; also in ``out/results.json``.

    Raises:
        UserError: Nothing is given, or a model's name is taken.
    """
    if not options.prms or REFERENCE in options.prms:
        raise UserError("no reward model is given, or one is named reference", where="--prm", hint="name one")
    if options.solutions is None and options.mistakes is None and not options.prmbench:
        raise UserError(
            "there is no data", where="transfer", hint="give --solutions, --mistakes or --prmbench"
        )
    results: dict[str, Any] = {}
    if options.solutions is not None:
        results["recorded solutions"] = _recorded(options, options.solutions)
    labelled = {} if options.mistakes is None else {options.mistakes: "bigbench-mistake"}
    labelled |= dict.fromkeys(options.prmbench, "prmbench")
    for data, format_name in labelled.items():
        results[data.stem] = _steps(options, data, format_name)
    write_json(options.out / "results.json", results)
    return results


def _recorded(options: Options, solutions: Path) -> dict[str, Any]:
    store = Store(options.out / "store")
    wanted = grade.Options(rollouts=solutions, grader="numeric", out=Path(), regrade=True)
    graded = store.make("grade", "solutions", wanted)
    scores = {
        name: store.make("score", name, score.Options(input=graded, prm=str(prm), out=Path()))
        for name, prm in options.prms.items()
    }
    reference = reference_scores(store, graded, options.reference)
    picked = eval_best_of_n.run(
        eval_best_of_n.Options(
            graded=graded,
            scores=tuple(f"{name}={path}" for name, path in {**scores, REFERENCE: reference}.items()),
            n=(1, 4),
        )
    ).evaluation.to_json()
    return {
        **evaluate([Fold(graded, reference, scores, {})]),
        "best of n": [row for row in picked["results"] if row["method"] in REPORTED],
    }


def _steps(options: Options, data: Path, format_name: str) -> Any:
    """The step evaluation's figures for each model, by step reward."""
    inputs = eval_steps.LabelledInputs(
        data=(str(data),),
        prm=tuple(f"{name}={prm}" for name, prm in options.prms.items()),
        out=options.out / data.stem,
    )
    evaluation = eval_steps.run(eval_steps.Options(inputs=inputs, format=format_name)).evaluation
    return evaluation.to_json()


def main() -> None:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--prm", action="append", required=True, metavar="NAME=DIR")
    parser.add_argument("--reference", type=Path, required=True, metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--solutions", type=Path)
    parser.add_argument("--mistakes", type=Path)
    parser.add_argument("--prmbench", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    prms = {name: Path(path) for name, _, path in (named.partition("=") for named in given.prm)}
    options = Options(
        prms=prms,
        reference=given.reference,
        out=given.out,
        solutions=given.solutions,
        mistakes=given.mistakes,
        prmbench=tuple(given.prmbench),
    )
    run(options)


if __name__ == "__main__":
    main()
