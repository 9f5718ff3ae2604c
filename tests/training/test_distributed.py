"""Two processes on a CPU: the same loss curve as one, and the same gradient from a sharded model."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.processes import run_ranks
from tests.training.distributed_worker import RESUMED, RUNS, command, work

from stepcredit.cli import main
from stepcredit.data import rollout_to_json, write_rows
from stepcredit.types import Rollout


def log(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "train_log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_train_as_one_does(tiny_model: Path, rollouts: list[Rollout], tmp_path: Path) -> None:
    graded = tmp_path / "graded.jsonl"
    write_rows(graded, map(rollout_to_json, rollouts))
    differences = tmp_path / "differences.json"
    run_ranks(partial(work, str(tiny_model), str(graded), tmp_path / "two", differences), tmp_path / "log")
    for name, extra in RUNS.items():
        assert main(command(str(tiny_model), str(graded), tmp_path / "one" / name, extra)) == 0
        one, two = log(tmp_path / "one" / name), log(tmp_path / "two" / name)
        assert len(one) == len(two) >= 4
        for expected, actual in zip(one, two, strict=True):
            if actual["step"] == 1 and "baseline_zero" in actual:
                # All rewards are 0 but for rounding, whose sign decides whether KTO's z is exactly 0.
                assert abs(actual["baseline"]) < 1e-5
                actual["baseline_zero"] = expected["baseline_zero"]
            # An adapter's first rewards are hardly above rounding, so their correlation is rounded more.
            correlations = [row.pop("heldout_length_correlation", 0.0) for row in (actual, expected)]
            assert correlations[0] == pytest.approx(correlations[1], rel=0, abs=1e-4), name
            assert actual == pytest.approx(expected, rel=1e-4, abs=1e-5), name
    assert max(json.loads(differences.read_text()).values()) < 1e-5
    stopped = tmp_path / "two" / "stopped"
    assert (stopped.with_name("stopped.partial") / "checkpoint-2").is_dir()
    assert main(command(str(tiny_model), str(graded), stopped, RESUMED)) == 0
    for expected, actual in zip(log(tmp_path / "one" / "ce"), log(stopped), strict=True):
        assert actual == pytest.approx(expected, rel=1e-4, abs=1e-5), "two processes, then one"
