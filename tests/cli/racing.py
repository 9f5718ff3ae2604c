"""Runs one command in several processes that start at different times, and looks at what is left."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

from stepcredit.cli import main
from stepcredit.runs import Manifest, Output, read_manifest

NUM_OTHERS = 10
_REFUSED = re.compile(r"stepcredit: error: .*: is being written by process \d+ on \S+ since .*")

# The processes are forked from one that has imported everything, so that they start within milliseconds.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "scipy.stats",
        "stepcredit.evaluation.best_of_n_evaluation",
        "stepcredit.logprobs",
        "stepcredit.reports.evaluation",
        "stepcredit.training.run",
        "tests.cli.racing",
        "transformers",
    ]
)


@dataclass(frozen=True)
class Race:
    """What became of the processes.

    Attributes:
        codes: Their exit codes, in the order in which they started.
        refused: Messages of those that found another one at work.
    """

    codes: list[int]
    refused: list[str]


def _run(words: Sequence[str], log: Path, barrier: Barrier | None, delay: float) -> None:
    with open(log, "wb") as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
    if barrier is not None:
        barrier.wait()
    time.sleep(delay)
    code = main(words)
    sys.stdout.flush()
    os._exit(code)


def start(
    words: Sequence[str], log: Path, barrier: Barrier | None = None, delay: float = 0.0
) -> ForkServerProcess:
    """Run a command in another process, after a delay from when all wait at the barrier."""
    process = CONTEXT.Process(target=_run, args=(words, log, barrier, delay))
    process.start()
    return process


def run_alone(words: Sequence[str], log: Path) -> float:
    """Run the command once, in a process of its own; gives the seconds that it took."""
    started = time.monotonic()
    process = start(words, log)
    process.join()
    assert process.exitcode == 0, log.read_text()
    return time.monotonic() - started


def race(words: Sequence[str], logs_in: Path, seconds: float) -> Race:
    """Run the command eleven times, the others at ten delays over ``seconds`` after the first one."""
    barrier = CONTEXT.Barrier(NUM_OTHERS + 1)
    logs = [logs_in / f"race-{number}.log" for number in range(NUM_OTHERS + 1)]
    delays = [seconds * number / NUM_OTHERS for number in range(NUM_OTHERS + 1)]
    processes = [start(words, log, barrier, delay) for log, delay in zip(logs, delays, strict=True)]
    for process in processes:
        process.join()
    codes, refused = [], []
    for process, log in zip(processes, logs, strict=True):
        assert process.exitcode in (0, 2), log.read_text()
        codes.append(process.exitcode)
        if process.exitcode == 2:
            errors = [line for line in log.read_text().splitlines() if line.startswith("stepcredit: error: ")]
            assert len(errors) == 1
            assert _REFUSED.fullmatch(errors[0]), errors[0]
            refused += errors
    return Race(codes, refused)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but manifests and logs of the time taken, by its name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "manifest.json" not in path.name
    }


def check_manifests(folder: Path) -> int:
    """Every manifest says what the output beside it holds; gives how many there are."""
    count = 0
    for path in sorted(folder.rglob("*manifest.json")):
        name = path.name.removesuffix(".manifest.json")
        output = path.parent if path.name == "manifest.json" else path.with_name(name)
        content = read_manifest(output)
        assert content is not None
        assert content["output"] is not None
        same = Manifest(content["command"], content["settings"], list(content["inputs"]))
        with Output(output, same) as finished:
            assert finished.complete, json.dumps(content)
        count += 1
    return count
