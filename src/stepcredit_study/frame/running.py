"""Measures experiments seed by seed, several at once, going on from what is there.

A stage is one experiment on one seed. Its numbers land in a file of their own; the responses, labels and
models behind them lie in the store, where other stages and later runs find them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stepcredit.errors import UserError
from stepcredit.pipelines.driver import RunByCommand, Store, run_here
from stepcredit.runs import Progress, hash_json, worker_pool, write_json
from stepcredit_study.frame.experiment import load_experiment
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement
from stepcredit_study.frame.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One experiment on one seed."""

    module: str
    scale: Scale
    seed: int
    out: Path

    @property
    def name(self) -> str:
        """The experiment's."""
        return self.module.rpartition(".")[2].replace("_", "-")

    @property
    def path(self) -> Path:
        """Where its numbers land."""
        return self.out / "measurements" / self.name / f"seed-{self.seed}.json"

    @property
    def key(self) -> str:
        """Identifies sizes and settings; how many seeds there are changes none of them."""
        content = asdict(self.scale) | {"seeds": None}
        return hash_json(json.loads(json.dumps(content, default=str)))


def read_measurement(stage: Stage) -> dict[str, Any] | None:
    """What an earlier run left of a stage; ``None`` if there is nothing, or of other settings."""
    try:
        content = json.loads(stage.path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) and content.get("key") == stage.key else None


def measure(stage: Stage) -> Measurement:
    """Make what the stage needs, measure, and write the numbers."""
    started = time.monotonic()
    runner = run_here if stage.scale.is_lab else RunByCommand(stage.scale.launchers)
    world = World(stage.scale, Store(stage.out / "store", runner), stage.seed)
    experiment = load_experiment(stage.module)
    numbers = dict(experiment.measure(world, experiment.prepare(world)))
    write_json(
        stage.path,
        {
            "experiment": stage.name,
            "seed": stage.seed,
            "key": stage.key,
            "seconds": round(time.monotonic() - started, 1),
            "numbers": numbers,
        },
    )
    return numbers


def run_stages(
    stages: Sequence[Stage], *, jobs: int, finished: Callable[[str, list[Measurement]], None] | None = None
) -> dict[str, list[Measurement]]:
    """Run what is not there yet.

    Args:
        stages: In the order in which they start; an earlier one's files serve the later ones.
        jobs: Processes, each of which computes with its share of the processors.
        finished: Called for each experiment as soon as all of its stages are there.

    Returns:
        Experiment to the numbers of its seeds, in the order of the stages.

    Raises:
        UserError: A stage failed; what is finished stays.
    """
    measured = {stage.path: content["numbers"] for stage in stages if (content := read_measurement(stage))}
    todo = [stage for stage in stages if stage.path not in measured]
    results: dict[str, list[Measurement]] = {}

    def conclude() -> None:
        for name in dict.fromkeys(stage.name for stage in stages if stage.name not in results):
            paths = [stage.path for stage in stages if stage.name == name]
            if all(path in measured for path in paths):
                results[name] = [measured[path] for path in paths]
                if finished is not None:
                    finished(name, results[name])

    conclude()
    if todo:
        with Progress("reproduce", len(stages), "stages", every=1.0) as progress:
            progress.advance(len(measured))
            for stage, numbers in _measured(todo, jobs):
                measured[stage.path] = numbers
                progress.advance(extra=f"{stage.name}, seed {stage.seed}")
                conclude()
    return {stage.name: results[stage.name] for stage in stages}


def _measured(stages: Sequence[Stage], jobs: int) -> Iterator[tuple[Stage, Measurement]]:
    if not stages[0].scale.is_lab:
        # Commands at a larger scale take the whole machine.
        for stage in stages:
            yield stage, measure(stage)
        return
    with worker_pool(jobs) as pool:
        pending: dict[Future[Measurement], Stage] = {
            pool.submit(_measure_quietly, stage): stage for stage in stages
        }
        while pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield pending.pop(future), future.result()


def _measure_quietly(stage: Stage) -> Measurement:
    """In a process of its own, whose commands' progress goes to a log."""
    log = stage.out / "logs" / f"{stage.name}-{stage.seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as handle, redirect_stderr(handle), redirect_stdout(handle):
        try:
            return measure(stage)
        except UserError:
            raise
        except BaseException:
            import traceback

            traceback.print_exc(file=handle)
            print(f"{stage.name}, seed {stage.seed}: see {log}", file=sys.__stderr__)
            raise
