"""A real language model and real responses: recorded GSM8K solutions of four models.

Purpose: the same commands, unchanged, on real input. A small model is trained on whether recorded solutions
ended in the right answer, and picks among four solutions of other problems.

What differs from the paper: a 135M-parameter model instead of 8B, 440 problems x 4 recorded solutions (of
four models, not of the policy itself) instead of 33,000 x 8 of its own, and length and likelihood are
reported as controls beside it.

Run: python -m stepcredit_study.gsm8k.recorded --solutions SOLUTIONS.jsonl --model DIR --out DIR
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints.sources import LoadOptions
from stepcredit.errors import UserError
from stepcredit.pipelines import eval_best_of_n, grade, score, train
from stepcredit.runs import Manifest, Output, check_output, write_json
from stepcredit.training.config import TrainConfig

if TYPE_CHECKING:
    from stepcredit.types import Rollout

SPLITS = {"train": 440, "dev": 60, "test": 160}
_SPLIT_SEED = 0
PRM, REFERENCE = "implicit-prm", "reference-log-probability"
TRAINING = TrainConfig(
    objective="ce",
    beta=0.1,
    learning_rate=2e-5,
    batch_size=32,
    epochs=1.0,
    step_rule="newline",
    precision="bfloat16",
    tokens_per_forward=4096,
    eval_every=14,
)
"""Fixed beforehand, but for where training stops: the held-out AUC of the development problems decides."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the recorded solutions and the model are, and where results go.

    Attributes:
        solutions: Rollouts of GSM8K problems, with ``correct`` and ``policy``.
        model: Initial weights and reference.
        out: Directory of everything that the run makes.
        publish: Directory for the small files that are kept: results, manifest, training log.
        splits: Number of problems of each split.
        training: Training settings.
    """

    solutions: Path
    model: Path
    out: Path
    publish: Path | None = None
    splits: Mapping[str, int] = field(default_factory=lambda: SPLITS)
    training: TrainConfig = TRAINING


def run(options: Options) -> dict[str, Any]:
    """Split, grade, train, score and evaluate."""
    from stepcredit_study.gsm8k.results import evaluate, publish, write_heat_map

    split(options.solutions, options.out, options.splits)
    for name in options.splits:
        grade.run(
            grade.Options(
                rollouts=options.out / name / "rollouts.jsonl",
                grader="numeric",
                out=options.out / name / "graded.jsonl",
                regrade=True,
            )
        )
    trained = train.run(
        train.Options(
            graded=options.out / "train" / "graded.jsonl",
            dev=options.out / "dev" / "graded.jsonl",
            model=str(options.model),
            out=options.out / "prm",
            cache=options.out / "reference-cache",
            config=options.training,
        )
    )
    assert isinstance(trained, train.Result), "no dry run was asked for"
    for name in ("dev", "test"):
        score_solutions(options, options.out / name)
    results = evaluate(options.out, dict(options.splits), trained.heldout, trained.kept_step)
    write_json(options.out / "results.json", results)
    write_heat_map(options.out)
    if options.publish is not None:
        publish(options, results)
    return results


def split(solutions: Path, out: Path, splits: Mapping[str, int]) -> None:
    """Divide the problems at random, by a fixed seed; all solutions of a problem stay together."""
    from stepcredit.data import read_rollouts, rollout_to_json, write_rows_into

    manifest = Manifest("gsm8k split", {"splits": dict(splits), "seed": _SPLIT_SEED}, inputs=[solutions])
    files = {name: out / name / "rollouts.jsonl" for name in splits}
    complete = {name: check_output(file, manifest, overwrite=False) for name, file in files.items()}
    if all(complete.values()):
        return
    groups: dict[str, list[Rollout]] = {}
    for rollout in read_rollouts(solutions):
        groups.setdefault(rollout.prompt_id, []).append(rollout)
    if len(groups) != sum(splits.values()):
        raise UserError(f"holds {len(groups)} problems, not {sum(splits.values())}", where=solutions)
    problems = sorted(groups)
    random.Random(_SPLIT_SEED).shuffle(problems)
    for name, count in splits.items():
        chosen, problems = problems[:count], problems[count:]
        rows = (rollout_to_json(row) for problem in chosen for row in groups[problem])
        output = Output(files[name], manifest)
        with output, output.replacing() as temporary:
            write_rows_into(temporary, files[name], rows)


def score_files(directory: Path) -> dict[str, Path]:
    """Scorer name to the file of its scores."""
    return {PRM: directory / "scores.jsonl", REFERENCE: directory / "reference-scores.jsonl"}


def score_solutions(options: Options, directory: Path) -> None:
    """Score ``graded.jsonl`` by the PRM, and by the reference's own log-probability."""
    files = score_files(directory)
    ours = score.Options(
        input=directory / "graded.jsonl",
        prm=str(options.out / "prm"),
        out=files[PRM],
        steps="newline",
        load=LoadOptions(dtype=options.training.precision),
    )
    score.run(ours)
    score.run(replace(ours, prm=str(options.model), reference_free=True, beta=1.0, out=files[REFERENCE]))


def best_of_n(out: Path) -> dict[str, Any]:
    """Accuracy of picking among four solutions; choices are made on the development problems."""
    named = [
        tuple(f"{name}={path}" for name, path in score_files(out / split).items())
        for split in ("test", "dev")
    ]
    result: Any = eval_best_of_n.run(
        eval_best_of_n.Options(
            graded=out / "test" / "graded.jsonl",
            scores=named[0],
            dev=out / "dev" / "graded.jsonl",
            dev_scores=named[1],
            n=(1, 2, 4),
        )
    )
    content: dict[str, Any] = result.to_json()
    return content


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, required in (("solutions", True), ("model", True), ("out", True), ("publish", False)):
        parser.add_argument(f"--{name}", type=Path, required=required)
    run(Options(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
