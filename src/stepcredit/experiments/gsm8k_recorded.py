"""A real language model and real responses: recorded GSM8K solutions of four models.

Purpose: the same commands, unchanged, on real input. A small model is trained on whether recorded solutions
ended in the right answer, and picks among four solutions of other problems.

What differs from the paper: a 135M-parameter model instead of 8B, 440 problems x 4 recorded solutions (of
four models, not of the policy itself) instead of 33,000 x 8 of its own, and length and likelihood are
reported as controls beside it.

Run: python -m stepcredit.experiments.gsm8k_recorded --solutions SOLUTIONS.jsonl --model DIR --out DIR
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.errors import UserError
from stepcredit.pipelines import eval_best_of_n, grade, score, train
from stepcredit.runs import Manifest, check_output, manifest_path, read_manifest, write_json
from stepcredit.training.config import TrainConfig

if TYPE_CHECKING:
    from stepcredit.types import Rollout

SPLITS = {"train": 440, "dev": 60, "test": 160}
_SPLIT_SEED = 0
PRM, REFERENCE = "implicit-prm", "reference-log-probability"
BASE_TRAINING = TrainConfig(
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
CANDIDATES = {
    "lr-2e-5": BASE_TRAINING,
    "lr-5e-5": replace(BASE_TRAINING, learning_rate=5e-5),
}
"""Settings that are compared on the development problems."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the recorded solutions and the model are, and where results go.

    Attributes:
        solutions: Rollouts of GSM8K problems, with ``correct`` and ``policy``.
        model: Initial weights and reference.
        out: Directory of everything that the run makes.
        publish: Directory for the small files that are kept: results, manifests, heat map's numbers.
    """

    solutions: Path
    model: Path
    out: Path
    publish: Path | None = None


def run(options: Options) -> dict[str, Any]:
    """Split, train each candidate, choose on development problems, score and evaluate the test problems."""
    from stepcredit.experiments.gsm8k_results import evaluate, publish

    split(options.solutions, options.out)
    for name in SPLITS:
        grade.run(
            grade.Options(
                rollouts=options.out / name / "rollouts.jsonl",
                grader="numeric",
                out=options.out / name / "graded.jsonl",
                regrade=True,
            )
        )
    chosen = choose(options)
    directory = options.out / "test"
    files = {PRM: directory / "scores.jsonl", REFERENCE: directory / "reference-scores.jsonl"}
    common = score.Options(
        input=directory / "graded.jsonl", prm=str(options.out / chosen), out=files[PRM], steps="newline"
    )
    score.run(common)
    reference = replace(common, prm=str(options.model), reference_free=True, beta=1.0, out=files[REFERENCE])
    score.run(reference)
    results = evaluate(directory, files, chosen, {name: heldout(options, name) for name in CANDIDATES})
    write_json(options.out / "results.json", results)
    if options.publish is not None:
        publish(options, chosen, results)
    return results


def split(solutions: Path, out: Path) -> None:
    """Divide the problems at random, by a fixed seed; all solutions of a problem stay together."""
    from stepcredit.data import read_rollouts, rollout_to_json, write_rows

    manifest = Manifest("gsm8k split", {"splits": SPLITS, "seed": _SPLIT_SEED}, inputs=[solutions])
    files = {name: out / name / "rollouts.jsonl" for name in SPLITS}
    complete = {name: check_output(file, manifest, overwrite=False) for name, file in files.items()}
    if all(complete.values()):
        return
    groups: dict[str, list[Rollout]] = {}
    for rollout in read_rollouts(solutions):
        groups.setdefault(rollout.prompt_id, []).append(rollout)
    if len(groups) != sum(SPLITS.values()):
        raise UserError(f"holds {len(groups)} problems, not {sum(SPLITS.values())}", where=solutions)
    problems = sorted(groups)
    random.Random(_SPLIT_SEED).shuffle(problems)
    for name, count in SPLITS.items():
        chosen, problems = problems[:count], problems[count:]
        write_rows(files[name], (rollout_to_json(row) for problem in chosen for row in groups[problem]))
        write_json(manifest_path(files[name]), manifest.to_json())


def choose(options: Options) -> str:
    """Train every candidate; the name of the one with the best outcome AUC on development problems."""
    for name, config in CANDIDATES.items():
        train.run(
            train.Options(
                graded=options.out / "train" / "graded.jsonl",
                dev=options.out / "dev" / "graded.jsonl",
                model=str(options.model),
                out=options.out / name,
                config=config,
            )
        )
    return max(CANDIDATES, key=lambda name: heldout(options, name)["auc"])


def heldout(options: Options, name: str) -> dict[str, float]:
    """Development metrics of a candidate."""
    manifest = read_manifest(options.out / name)
    assert manifest is not None, "the candidate has been trained"
    metrics: dict[str, float] = manifest["heldout"]
    return metrics


def best_of_n(graded: Path, files: dict[str, Path]) -> dict[str, Any]:
    """Accuracy of picking among four solutions."""
    named = tuple(f"{name}={path}" for name, path in files.items())
    result: Any = eval_best_of_n.run(eval_best_of_n.Options(graded=graded, scores=named, n=(1, 2, 4)))
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
