"""Runs one command in several processes that start at different times, and looks at what is left."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.processes import CONTEXT, start

from stepcredit.runs import Manifest, Output, read_manifest

NUM_OTHERS = 10
_REFUSED = re.compile(r"stepcredit: error: .*: is being written by process \d+ on \S+ since .*")


@dataclass(frozen=True)
class Race:
    """What became of the processes.

    Attributes:
        codes: Their exit codes, in the order in which they started.
        refused: Messages of those that found another one at work.
    """

    codes: list[int]
    refused: list[str]


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
