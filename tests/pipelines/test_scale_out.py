from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import MissingExtraError, UserError
from stepcredit.pipelines.grade import Options, run
from stepcredit.pipelines.scale_out import over_ray

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra 'ray'")


def rollouts(path: Path, count: int) -> Path:
    rows = [
        {
            "id": f"p{number // 4}/{number % 4}",
            "prompt_id": f"p{number // 4}",
            "prompt": "1+1=",
            "response": "kill" if number == count // 2 + 1 else str(number % 3),
            "answer": None if number % 50 == 0 else "2",
            "correct": True if number % 70 == 1 else None,
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return sorted(
        map(json.loads, path.read_text(encoding="utf-8").splitlines()), key=lambda row: str(row["id"])
    )


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_same_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(Path(__file__).parent / "graders_for_ray.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    source = rollouts(tmp_path / "rollouts.jsonl", 1200)
    options = Options(
        rollouts=source,
        grader="python:graders_for_ray:killing_once",
        out=tmp_path / "over-ray.jsonl",
        num_workers=2,
    )
    spread = run(replace(options, ray="local"))
    assert (tmp_path / "killed").exists()
    alone = run(replace(options, out=tmp_path / "alone.jsonl"))
    assert read(spread.out) == read(alone.out)
    assert spread.counts == alone.counts
    assert sorted(path.name for path in tmp_path.iterdir() if ".rows" in path.name) == []


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense"])
def test_a_cluster_that_is_not_there_is_an_error(tmp_path: Path, address: str) -> None:
    with pytest.raises(UserError, match="no Ray cluster can be reached"):
        list(over_ray([{"id": "a"}], list, address=address, folder=tmp_path))  # type: ignore[arg-type]


def test_without_ray_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stepcredit\[ray\]'"):
        list(over_ray([{"id": "a"}], list, address="local", folder=tmp_path))  # type: ignore[arg-type]
