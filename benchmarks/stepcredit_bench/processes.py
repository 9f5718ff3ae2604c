"""Sides of a comparison, each in a process of its own, run by turns.

A side has the whole machine while it runs and keeps nothing of the other's in memory. Its process lives
through all of its turns, so that loading and warming up are not timed.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch


class Side(Protocol):
    """One way of doing the work; everything it needs is imported once it is constructed."""

    def load(self) -> None:
        """Build models and data."""
        ...

    def warm_up(self) -> None:
        """Run a little of the work, untimed."""
        ...

    def prepare(self) -> None:
        """Bring a turn's starting point about, untimed."""
        ...

    def run(self) -> dict[str, Any]:
        """Do the work once; what comes back is compared or reported."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SideReport:
    """What a side took.

    Attributes:
        seconds: Wall-clock seconds of each turn.
        cpu_seconds: Processor seconds of each turn, all threads; far below ``threads * seconds`` where other
            work kept the machine busy.
        outcome: What its last turn returned.
        imports_mb: Resident memory (MiB) before anything was loaded: the interpreter and libraries.
        loaded_mb: Resident memory with models loaded, before the work.
        peak_mb: Highest resident memory during warm-up and turns.
    """

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    outcome: Mapping[str, Any]
    imports_mb: float
    loaded_mb: float
    peak_mb: float

    @property
    def best_seconds(self) -> float:
        """The fastest turn: the one that other work on the machine disturbed least."""
        return min(self.seconds)

    @property
    def working_mb(self) -> float:
        """What the work itself took at its peak (MiB), beyond libraries and loaded models."""
        return self.peak_mb - self.loaded_mb

    def to_json(self) -> dict[str, Any]:
        """JSON-able, without the outcome."""
        return {
            "seconds": list(self.seconds),
            "cpu_seconds": list(self.cpu_seconds),
            "peak_mb": self.peak_mb,
            "imports_mb": self.imports_mb,
            "loaded_mb": self.loaded_mb,
        }


def compare(
    sides: Mapping[str, Callable[[], Side]],
    *,
    turns: int,
    threads: int,
    on_turn: Callable[[str, float], None],
) -> dict[str, SideReport]:
    """Let the sides do their work by turns.

    Args:
        sides: Name to what makes the side in its process; it must be picklable.
        turns: Turns of each side.
        threads: Threads of each side.
        on_turn: Called after each turn, for progress.

    Returns:
        One report a side.
    """
    processes = {name: _SideProcess(name, make, threads) for name, make in sides.items()}
    try:
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        cpu_seconds: dict[str, list[float]] = {name: [] for name in sides}
        outcomes: dict[str, dict[str, Any]] = {}
        for _ in range(turns):
            for name, process in processes.items():
                took, cpu, outcomes[name] = process.ask("run")
                seconds[name].append(took)
                cpu_seconds[name].append(cpu)
                on_turn(name, took)
        return {
            name: SideReport(
                seconds=tuple(seconds[name]),
                cpu_seconds=tuple(cpu_seconds[name]),
                outcome=outcomes[name],
                **process.ask("memory"),
            )
            for name, process in processes.items()
        }
    finally:
        for process in processes.values():
            process.close()


class _SideProcess:
    def __init__(self, name: str, make: Callable[[], Side], threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, threads), name=name, daemon=True)
        self._process.start()
        theirs.close()
        self.ask("load")

    def ask(self, request: str) -> Any:
        self._connection.send(request)
        try:
            kind, answer = self._connection.recv()
        except EOFError as error:
            raise RuntimeError(
                f"the process of side {self._process.name!r} ended during {request}"
            ) from error
        if kind == "error":
            raise RuntimeError(f"the side {self._process.name!r} failed:\n{answer}")
        return answer

    def close(self) -> None:
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(connection: Connection, make: Callable[[], Side], threads: int) -> None:
    # Results go to stdout in the parent; what libraries print must not mix with them.
    os.dup2(2, 1)
    torch.set_num_threads(threads)
    memory: dict[str, float] = {}
    side: Side | None = None
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            if request == "load":
                side = make()
                memory["imports_mb"] = resident_mb()
                side.load()
                release_free_memory()
                memory["loaded_mb"] = resident_mb()
                reset_peak()
                side.warm_up()
                connection.send(("done", None))
            elif request == "run":
                assert side is not None, "run before load"
                side.prepare()
                release_free_memory()
                wall, cpu = time.perf_counter(), time.process_time()
                outcome = side.run()
                took = (time.perf_counter() - wall, time.process_time() - cpu)
                release_free_memory()  # the other sides need it
                connection.send(("done", (*took, outcome)))
            else:
                connection.send(("done", {**memory, "peak_mb": peak_mb()}))
        except Exception:
            import traceback

            connection.send(("error", traceback.format_exc()))
            return


def _status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def process_age() -> float:
    """Seconds since this process was started, imports included (Linux)."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def resident_mb() -> float:
    """Resident memory of this process now, in MiB (Linux)."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """Highest resident memory since the start or :func:`reset_peak`, in MiB (Linux)."""
    return _status_mb("VmHWM")


def release_free_memory() -> None:
    """Give back what is freed but kept for reuse, so that resident memory is what is in use (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def reset_peak() -> None:
    """Let :func:`peak_mb` count from now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
