from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from tests.processes import CONTEXT

from stepcredit_bench.processes import compare, peak_mb, reset_peak, resident_mb


@dataclass
class Recorder:
    """A side that tells what was done to it, and can fail."""

    name: str
    fails: bool = False
    prepared: int = 0

    def load(self) -> None:
        print("libraries may print")

    def warm_up(self) -> None: ...

    def prepare(self) -> None:
        self.prepared += 1
        time.sleep(0.2)

    def run(self) -> dict[str, Any]:
        if self.fails:
            raise RuntimeError("out of luck")
        time.sleep(0.05)
        return {"process": os.getpid(), "turns": self.prepared, "threads": torch.get_num_threads()}


@pytest.mark.slow
def test_sides_take_turns_in_processes_of_their_own(capfd: pytest.CaptureFixture[str]) -> None:
    turns: list[str] = []
    reports = compare(
        {"first": partial(Recorder, "first"), "second": partial(Recorder, "second")},
        turns=2,
        threads=1,
        on_turn=lambda name, seconds: turns.append(name),
    )
    assert turns == ["first", "second"] * 2
    processes = {report.outcome["process"] for report in reports.values()}
    assert len(processes) == 2
    assert os.getpid() not in processes
    for report in reports.values():
        assert report.outcome["turns"] == 2
        assert report.outcome["threads"] == 1
        assert len(report.seconds) == len(report.cpu_seconds) == 2
        assert report.best_seconds >= 0.05
        assert min(report.cpu_seconds) < 0.05, "preparing was timed"
        # The peak counts from after loading, and the kernel may have taken pages of the libraries back.
        assert report.imports_mb > 0
        assert report.peak_mb > 0
    assert "libraries may print" not in capfd.readouterr().out


@pytest.mark.slow
def test_a_failing_side_tells_why() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)side 'bad' failed.*out of luck"):
        compare(
            {"bad": partial(Recorder, "bad", fails=True)},
            turns=1,
            threads=1,
            on_turn=lambda name, seconds: None,
        )


def test_peak_memory_counts_from_the_reset() -> None:
    """In a process of its own, in which nothing else is freed meanwhile."""
    process = CONTEXT.Process(target=_take_and_give_back)
    process.start()
    process.join()
    assert process.exitcode == 0


def _take_and_give_back() -> None:
    block = bytearray(64 * 2**20)
    del block
    reset_peak()
    before = resident_mb()
    assert peak_mb() < before + 32
    block = bytearray(b"x") * (64 * 2**20)
    assert peak_mb() >= before + 60
    assert len(block) > 0
