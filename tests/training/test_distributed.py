"""Two processes on a CPU: the same loss curve as one, and the same gradient from a sharded model."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stepcredit.cli import main
from stepcredit.data import rollout_to_json, write_rows
from stepcredit.types import Rollout

WORKER = Path(__file__).with_name("distributed_worker.py")


def worker() -> ModuleType:
    specification = importlib.util.spec_from_file_location("distributed_worker", WORKER)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def log(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "train_log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_train_as_one_does(tiny_model: Path, rollouts: list[Rollout], tmp_path: Path) -> None:
    graded = tmp_path / "graded.jsonl"
    write_rows(graded, map(rollout_to_json, rollouts))
    differences = tmp_path / "differences.json"
    arguments = [str(tiny_model), str(graded), str(tmp_path / "two"), str(differences)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*launcher, str(WORKER), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    module = worker()
    for name, extra in module.RUNS.items():
        assert main(module.command(str(tiny_model), str(graded), tmp_path / "one" / name, extra)) == 0
        one, two = log(tmp_path / "one" / name), log(tmp_path / "two" / name)
        assert len(one) == len(two) >= 4
        for expected, actual in zip(one, two, strict=True):
            assert actual == pytest.approx(expected, rel=1e-4, abs=1e-5), name
    assert max(json.loads(differences.read_text()).values()) < 1e-5
    stopped = tmp_path / "two" / "stopped"
    assert (stopped.with_name("stopped.partial") / "checkpoint-2").is_dir()
    assert main(module.command(str(tiny_model), str(graded), stopped, module.RESUMED)) == 0
    for expected, actual in zip(log(tmp_path / "one" / "ce"), log(stopped), strict=True):
        assert actual == pytest.approx(expected, rel=1e-4, abs=1e-5), "two processes, then one"
