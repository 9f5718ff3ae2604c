"""How long ``eval best-of-n`` takes and how much memory it needs, from files and from memory.

    python benchmarks/evaluate_best_of_n.py --problems 500 --responses 64 --scorers 8

Made-up rollouts and scores; every aggregate, every vote, intervals, comparisons and diagnostics.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stepcredit.data import read_rollouts
from stepcredit.evaluation.best_of_n_evaluation import evaluate_best_of_n
from stepcredit.evaluation.samples import join
from stepcredit.evaluation.score_columns import read_many_score_columns

NUM_STEPS = 6
NUM_ANSWERS = 10


def write_rollouts(path: Path, problems: int, responses: int, generator: np.random.Generator) -> None:
    with path.open("w") as handle:
        for problem in range(problems):
            shares = generator.dirichlet(np.full(NUM_ANSWERS, 0.5))
            for index in range(responses):
                answer = int(generator.choice(NUM_ANSWERS, p=shares))
                row = {
                    "id": f"{problem}-{index}",
                    "prompt_id": str(problem),
                    "index": index,
                    "prompt": "What is it?",
                    "response": "step\n" * int(generator.integers(NUM_STEPS, 40)),
                    "answer": "0",
                    "correct": answer == 0,
                    "prediction": str(answer),
                    "finish_reason": "stop",
                }
                handle.write(json.dumps(row) + "\n")


def write_scores(path: Path, problems: int, responses: int, generator: np.random.Generator) -> None:
    with path.open("w") as handle:
        for problem in range(problems):
            for index in range(responses):
                rewards = generator.normal(size=NUM_STEPS)
                values = np.cumsum(rewards)
                steps = [
                    {"index": k, "text": "step\n", "start": 5 * k, "end": 5 * k + 5, "reward": r, "value": v}
                    for k, (r, v) in enumerate(zip(rewards.tolist(), values.tolist(), strict=True))
                ]
                aggregates = {
                    "min": float(rewards.min()),
                    "last": float(rewards[-1]),
                    "mean": float(rewards.mean()),
                    "sum": float(rewards.sum()),
                    "product": float(rewards.prod()),
                }
                row = {
                    "id": f"{problem}-{index}",
                    "prompt_id": str(problem),
                    "reward": float(values[-1]),
                    "steps": steps,
                    "aggregates": aggregates,
                    "num_tokens": 40,
                    "scorer": "made up",
                }
                handle.write(json.dumps(row) + "\n")


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), processor_seconds()
    yield
    print(f"{what}: {time.perf_counter() - wall:.1f} s, {processor_seconds() - cpu:.1f} s of processor time")


def processor_seconds() -> float:
    usages = (resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--responses", type=int, default=64)
    parser.add_argument("--scorers", type=int, default=8)
    parser.add_argument("--draws", type=int, default=10_000)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        graded = Path(name) / "graded.jsonl"
        write_rollouts(graded, arguments.problems, arguments.responses, generator)
        files = {f"scorer-{index}": Path(name) / f"{index}.jsonl" for index in range(arguments.scorers)}
        for path in files.values():
            write_scores(path, arguments.problems, arguments.responses, generator)

        with timed("reading"):
            joined = join(
                read_rollouts(graded),
                dict(zip(files, read_many_score_columns(list(files.values())), strict=True)),
            )
        with timed("evaluating"):
            evaluation = evaluate_best_of_n(joined, draws=arguments.draws)
        print(f"{len(evaluation.results)} figures, {len(evaluation.comparisons)} comparisons")
        command = ["eval", "best-of-n", str(graded), "--json", "--draws", str(arguments.draws)]
        for scorer, path in files.items():
            command += ["--scores", f"{scorer}={path}"]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"most memory so far: {memory:.0f} MB")
        with timed("the command in a process of its own, start and reading included"):
            subprocess.run(
                [sys.executable, "-m", "stepcredit", *command], stdout=subprocess.DEVNULL, check=True
            )


if __name__ == "__main__":
    main()
