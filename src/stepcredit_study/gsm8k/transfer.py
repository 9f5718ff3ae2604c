"""Transfer: reward models, untouched, on data of other worlds.

Purpose: does what a reward model learned from its own policy's responses order other models' recorded
solutions, and find other people's labelled wrong steps? It may well fail; then that is what is reported.

Recorded solutions: AUC within a generator and within a problem with length regressed out, beside shortness
and the reference's log-probability, and the best of four. BIG-Bench-Mistake and PRMBench rows: AUC of first
wrong steps against right steps before them, beside the reference's mean log-probability of the step and the
step's length. A model that was trained on the recorded solutions themselves is one more ``--prm``.

Run: python -m stepcredit_study.gsm8k.transfer --prm NAME=DIR [--prm ...] --reference MODEL --out DIR
     [--aggregate NAME=mean ...] [--solutions SOLUTIONS.jsonl] [--mistakes MISTAKES.jsonl]
     [--prmbench FILE ...]
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stepcredit.data import read_rollouts
from stepcredit.errors import UserError
from stepcredit.evaluation.labelled_steps import join_labels
from stepcredit.evaluation.localisation import first_error_classes
from stepcredit.evaluation.score_columns import read_score_columns
from stepcredit.pipelines import convert, eval_best_of_n, grade, score
from stepcredit.pipelines.driver import Store
from stepcredit.reports.summary import REPORTED
from stepcredit.runs import write_json, write_text
from stepcredit.stats import ProblemBootstrap
from stepcredit_study.analyses.grouped_auc import Grouped, grouped_auc
from stepcredit_study.analyses.step_tokens import means_and_lengths
from stepcredit_study.analyses.within_problem import as_list
from stepcredit_study.frame.world import reference_scores
from stepcredit_study.gsm8k.fold_results import REFERENCE, SHORTNESS, Fold, evaluate
from stepcredit_study.gsm8k.transfer_page import SOLUTIONS, transfer_page


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is scored by what.

    Attributes:
        prms: Name to reward model.
        reference: The untrained model, whose log-probability is the control.
        aggregates: Name to the aggregate that stands for a response; its reward where none is named.
        solutions: Rollouts of GSM8K problems by several models, with ``policy``.
        mistakes: Rows of BIG-Bench-Mistake.
        prmbench: Files of PRMBench's rows, one for each kind of error.
    """

    prms: Mapping[str, Path]
    reference: Path
    out: Path
    aggregates: Mapping[str, str] = field(default_factory=dict)
    solutions: Path | None = None
    mistakes: Path | None = None
    prmbench: tuple[Path, ...] = ()


def run(options: Options) -> dict[str, Any]:
    """Score and evaluate what is given; also in ``out/results.json`` and ``out/README.md``.

    Raises:
        UserError: Nothing is given, or a model's name is taken.
    """
    if not options.prms or {REFERENCE, SHORTNESS} & options.prms.keys():
        raise UserError(
            f"no reward model is given, or one is named {REFERENCE} or {SHORTNESS}",
            where="--prm",
            hint="name one",
        )
    if unknown := options.aggregates.keys() - options.prms.keys():
        raise UserError(f"there is no --prm {min(unknown)}", where="--aggregate", hint="name a reward model")
    if options.solutions is None and options.mistakes is None and not options.prmbench:
        raise UserError(
            "there is no data", where="transfer", hint="give --solutions, --mistakes or --prmbench"
        )
    store = Store(options.out / "store")
    results: dict[str, Any] = {}
    if options.solutions is not None:
        results[SOLUTIONS] = _recorded(options, store, options.solutions)
    labelled = {} if options.mistakes is None else {options.mistakes: "bigbench-mistake"}
    labelled |= dict.fromkeys(options.prmbench, "prmbench")
    for data, format_name in labelled.items():
        results[data.stem] = _steps(options, store, data, format_name)
    write_json(options.out / "results.json", results)
    write_text(options.out / "README.md", transfer_page(results))
    return results


def _recorded(options: Options, store: Store, solutions: Path) -> dict[str, Any]:
    wanted = grade.Options(rollouts=solutions, grader="numeric", out=Path(), regrade=True)
    graded = store.make("grade", "solutions", wanted)
    scores, reference = _scores(options, store, graded)
    picked = eval_best_of_n.run(
        eval_best_of_n.Options(
            graded=graded,
            scores=tuple(f"{name}={path}" for name, path in {**scores, REFERENCE: reference}.items()),
            n=(1, 4),
        )
    ).evaluation.to_json()
    return {
        **evaluate([Fold(graded, reference, scores, {}, options.aggregates)]),
        "aggregates": dict(options.aggregates),
        "best of n": [row for row in picked["results"] if row["method"] in REPORTED],
    }


def _steps(options: Options, store: Store, data: Path, format_name: str) -> dict[str, Any]:
    """AUC of first wrong steps, by low rewards, against right steps before any error."""
    wanted = convert.Options(source=str(data), out=Path(), from_format=format_name)
    labelled = store.make("convert", data.stem, wanted)
    scores, reference = _scores(options, store, labelled)
    rollouts = list(read_rollouts(labelled))
    columns = {name: read_score_columns(path) for name, path in {**scores, REFERENCE: reference}.items()}
    by_tokens = means_and_lengths(reference)
    means, lengths = (
        np.concatenate([by_tokens[identifier][which] for identifier in columns[REFERENCE].ids])
        for which in (0, 1)
    )
    columns[SHORTNESS] = replace(columns[REFERENCE], step_rewards=-lengths)
    columns[REFERENCE] = replace(columns[REFERENCE], step_rewards=means)
    joined = {name: join_labels(rollouts, column) for name, column in columns.items()}
    right, wrong = first_error_classes(joined[REFERENCE])
    counted = right | wrong
    problems, positions = (
        which[counted] for which in (joined[REFERENCE].cluster_of_step, joined[REFERENCE].position_of_step)
    )
    items = Grouped.one(wrong[counted], problems)
    in_place = Grouped(wrong[counted], problems, positions)
    suspicion = {name: [-steps.rewards[counted]] for name, steps in joined.items()}
    bootstrap = ProblemBootstrap(joined[REFERENCE].num_clusters)
    rows: dict[str, Any] = {}
    for name, values in suspicion.items():
        rows[name] = {
            "auc": as_list(grouped_auc(items, values, bootstrap)),
            "at the same position": as_list(grouped_auc(in_place, values, bootstrap)),
        }
        if name in options.prms:
            rows[name] |= {
                f"minus {control}": as_list(grouped_auc(items, values, bootstrap, minus=suspicion[control]))
                for control in (REFERENCE, SHORTNESS)
            }
    return {
        "first wrong": int(wrong.sum()),
        "right before": int(right.sum()),
        "by position": as_list(grouped_auc(items, [positions * 1.0], bootstrap)),
        "methods": rows,
    }


def _scores(options: Options, store: Store, data: Path) -> tuple[dict[str, Path], Path]:
    """Of each reward model, and the untrained model's log-probability, token by token."""
    cache = store.root / "reference"
    scores = {
        name: store.make("score", name, score.Options(input=data, prm=str(prm), out=Path(), cache=cache))
        for name, prm in options.prms.items()
    }
    return scores, reference_scores(store, data, options.reference, tokens=True)


def main() -> None:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--prm", action="append", required=True, metavar="NAME=DIR")
    parser.add_argument("--reference", type=Path, required=True, metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--aggregate", action="append", default=[], metavar="NAME=AGGREGATE")
    parser.add_argument("--solutions", type=Path)
    parser.add_argument("--mistakes", type=Path)
    parser.add_argument("--prmbench", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    prms, aggregates = (
        {name: value for name, _, value in (word.partition("=") for word in words)}
        for words in (given.prm, given.aggregate)
    )
    options = Options(
        prms={name: Path(path) for name, path in prms.items()},
        aggregates=aggregates,
        reference=given.reference,
        out=given.out,
        solutions=given.solutions,
        mistakes=given.mistakes,
        prmbench=tuple(given.prmbench),
    )
    run(options)


if __name__ == "__main__":
    main()
