"""Commands of stepcredit in processes of their own, some of which are killed at a chosen moment."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Self

from stepcredit.cli import main
from stepcredit.runs import lines

# The processes are forked from one that has imported everything, so that they start within milliseconds.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "scipy.stats",
        "stepcredit.evaluation.best_of_n_evaluation",
        "stepcredit.logprobs",
        "stepcredit.reports.evaluation",
        "stepcredit.serving.app",
        "stepcredit.training.run",
        "tests.processes",
        "transformers.models.llama.modeling_llama",
    ]
)


def _do_not_sync(fd: object) -> None: ...


# As in the tests' own process: processes are killed here, but nobody cuts the power.
os.fsync = _do_not_sync


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


def _run_and_die(words: Sequence[str], log: Path, rows: int, settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        module, _, attribute = name.rpartition(".")
        setattr(importlib.import_module(module), attribute, value)
    lines._SYNC_SECONDS = 0.0  # Each piece is noted at once.
    append, written = lines.ResumableLines.append, 0

    def append_or_die(self: lines.ResumableLines, row: Any) -> None:
        nonlocal written
        append(self, row)
        written += 1
        if written == rows:
            self.sync()
            os.kill(os.getpid(), signal.SIGKILL)

    lines.ResumableLines.append = append_or_die  # type: ignore[method-assign]
    _run(words, log, None, 0.0)


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


def kill_when(words: Sequence[str], log: Path, has_come_far: Callable[[], bool]) -> None:
    """Run a command and kill its process as soon as a condition holds."""
    process = start(words, log)
    while not has_come_far():
        assert process.is_alive(), f"it ended before it could be killed: {log.read_text()}"
        time.sleep(0.002)
    process.kill()
    process.join()


def run_until_killed(
    words: Sequence[str], log: Path, *, rows: int, settings: Mapping[str, Any] | None = None
) -> None:
    """Run a command that is killed after it has written so many rows.

    Args:
        words: The command and its options.
        log: Where its standard output and error go.
        rows: How many.
        settings: Values of names of modules in its process, e.g. to make pieces smaller.
    """
    process = CONTEXT.Process(target=_run_and_die, args=(words, log, rows, settings or {}))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, log.read_text()


def run_ranks(work: Callable[[], None], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a function in two processes that find each other as those of ``torchrun`` do.

    Args:
        work: Can be pickled; it ends with an exception where something is wrong.
        log: Where standard output and error of both go.
        environment: Beside what ``torchrun`` sets.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    processes = []
    for rank in ("0", "1"):
        found = {**(environment or {}), **names, "RANK": rank, "LOCAL_RANK": rank}
        processes.append(CONTEXT.Process(target=_run_rank, args=(work, log, found)))
        processes[-1].start()
    while any(process.is_alive() for process in processes):
        if any(process.exitcode for process in processes):
            for process in processes:
                process.kill()
        time.sleep(0.01)
    assert [process.exitcode for process in processes] == [0, 0], log.read_text()


def _run_rank(work: Callable[[], None], log: Path, environment: Mapping[str, str]) -> None:
    with open(log, "ab") as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
    os.environ.update(environment)
    work()


class Server:
    """``stepcredit serve`` in a process of its own, on a port that is free unless one is named.

    Args:
        words: Its options.
        log: Where its standard output and error go.

    Attributes:
        process: The process.
        address: Where it listens.
    """

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self.log, self._asked = log, False
        log.write_text("")  # An earlier server may have written where it listened.
        self.process = start(["serve", "--port", "0", *words], log)
        while not (match := re.search(r"at http://\S+:(\d+)", log.read_text())):
            assert self.process.is_alive(), log.read_text()
            time.sleep(0.01)
        self.address = f"http://127.0.0.1:{match[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask_to_end(self) -> None:
        """Send one signal: a second one, when the first is dealt with, would interrupt the way out."""
        if not self._asked:
            self.process.terminate()
        self._asked = True

    def end(self) -> str:
        """Ask it to end, unless it was asked; all that it wrote."""
        self.ask_to_end()
        self.process.join(60)
        assert self.process.exitcode == 0, self.log.read_text()
        return self.log.read_text()


def partial_rows(out: Path) -> int:
    """Rows that a killed run left."""
    return len(out.with_name(out.name + ".partial").read_bytes().splitlines())
