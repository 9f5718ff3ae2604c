from __future__ import annotations

from pathlib import Path

import pytest

from stepcredit.data import read_scores, rollout_to_json, write_rows
from stepcredit.errors import DataError, UserError
from stepcredit.pipelines import baseline
from stepcredit.types import Rollout


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    rollouts = [
        Rollout(id=str(n), prompt_id="p", prompt="?", response="x" * n, prediction="1", correct=n > 1)
        for n in range(1, 4)
    ]
    write_rows(tmp_path / "graded.jsonl", map(rollout_to_json, rollouts))
    return tmp_path / "graded.jsonl"


def test_scores_are_an_ordinary_score_file(graded: Path, tmp_path: Path) -> None:
    options = baseline.Options(rollouts=graded, by="oracle", out=tmp_path / "oracle.jsonl")
    assert baseline.run(options).counts == {"scored": 3}
    assert [score.reward for score in read_scores(options.out)] == [0, 1, 1]
    again = baseline.run(options)
    assert again.already_done
    assert "3 responses" in again.to_text()


def test_another_baseline_does_not_replace_a_file_unasked(graded: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    baseline.run(baseline.Options(rollouts=graded, by="longest", out=out))
    with pytest.raises(UserError, match="--overwrite"):
        baseline.run(baseline.Options(rollouts=graded, by="shortest", out=out))
    baseline.run(baseline.Options(rollouts=graded, by="shortest", out=out, overwrite=True))
    assert [score.reward for score in read_scores(out)] == [-1, -2, -3]


def test_an_empty_file_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError, match="no response"):
        baseline.run(baseline.Options(rollouts=tmp_path / "empty.jsonl", by="random", out=out))
    assert not out.exists()
