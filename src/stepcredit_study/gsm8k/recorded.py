"""A real language model and real responses: recorded GSM8K solutions of four models.

Purpose: the same commands, unchanged, on real input. A small model is trained on whether recorded solutions
ended in the right answer, and picks among four solutions of other problems.

What differs from the paper: a 135M-parameter model instead of 8B, 440 problems x 4 recorded solutions (of
four models, not of the policy itself) instead of 33,000 x 8 of its own, and length and likelihood are
reported as controls beside it.

Run: python -m stepcredit_study.gsm8k.recorded --solutions SOLUTIONS.jsonl --model DIR --out DIR
"""

from __future__ import annotations

import random
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stepcredit.checkpoints.sources import LoadOptions
from stepcredit.data import read_rollouts, rollout_to_json, write_rows_into
from stepcredit.errors import UserError
from stepcredit.pipelines import grade, score, train
from stepcredit.pipelines.demo import PRM, REFERENCE, SCORES
from stepcredit.pipelines.driver import Store
from stepcredit.runs import Manifest, Output, check_output, write_json
from stepcredit.training.config import TrainConfig
from stepcredit.types import Rollout
from stepcredit_study.gsm8k.results import development, evaluate, publish, write_heat_map

SPLITS = {"train": 440, "dev": 60, "test": 160}
_SPLIT_SEED = 0
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
        publish: Directory for the small files that are kept: results, manifest, training log.
    """

    solutions: Path
    model: Path
    out: Path
    publish: Path | None = None
    splits: Mapping[str, int] = field(default_factory=lambda: SPLITS)
    training: TrainConfig = TRAINING


def run(options: Options) -> dict[str, Any]:
    """Split, grade, train, score and evaluate."""
    out = options.out
    store = Store(out)
    split(options.solutions, out, options.splits)
    for name in options.splits:
        rollouts, graded = out / name / "rollouts.jsonl", out / name / "graded.jsonl"
        store.run("grade", grade.Options(rollouts=rollouts, grader="numeric", out=graded, regrade=True))
    prm = store.run(
        "train",
        train.Options(
            graded=out / "train" / "graded.jsonl",
            dev=out / "dev" / "graded.jsonl",
            model=str(options.model),
            out=out / "prm",
            cache=out / "reference-cache",
            config=options.training,
        ),
    )
    for name in ("dev", "test"):
        ours = score.Options(
            input=out / name / "graded.jsonl",
            prm=str(prm),
            out=out / name / SCORES[PRM],
            steps="newline",
            load=LoadOptions(dtype=options.training.precision),
        )
        store.run("score", ours)
        likelihood = replace(
            ours, prm=str(options.model), reference_free=True, beta=1.0, out=out / name / SCORES[REFERENCE]
        )
        store.run("score", likelihood)
    results = {"problems": dict(options.splits), "development": development(prm), **evaluate(out)}
    write_json(out / "results.json", results)
    write_heat_map(out)
    if options.publish is not None:
        publish(results, out, options.publish, options.model.name)
    return results


def split(solutions: Path, out: Path, splits: Mapping[str, int]) -> None:
    """Divide the problems at random, by a fixed seed; all solutions of a problem stay together."""
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


def main() -> None:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    for name, required in (("solutions", True), ("model", True), ("out", True), ("publish", False)):
        parser.add_argument(f"--{name}", type=Path, required=required)
    run(Options(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
