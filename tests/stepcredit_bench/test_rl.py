from __future__ import annotations

import json

import pytest

from stepcredit.cli import main
from stepcredit_bench.rewarding import StepTimes
from stepcredit_bench.rl import Result


def test_shares_by_hand() -> None:
    steps = (StepTimes(8.0, 1.0, 4.0, 0.5, 16, 100), StepTimes(12.0, 1.0, 6.0, 0.75, 16, 120))
    result = Result(steps=steps, settings={"prompts": 2, "responses": 8, "threads": 1})
    assert (result.share, result.cpu_share) == (0.1, 0.125)
    assert "2 problems x 8 completions per step, 1 thread\n" in result.to_text()
    assert result.to_text().endswith("take 10.0% of a step's time, 12.5% of its processor time")


@pytest.mark.slow
def test_the_trainers_own_steps_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl")
    small = ["--prompts", "2", "--responses", "2", "--steps", "1", "--max-new-tokens", "8", "--threads", "1"]
    assert main(["bench", "rl", *small, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (step,) = printed["steps"]
    assert 0 < step["reward_seconds"] < step["seconds"]
    assert 0 < printed["reward_share"] < 1
    assert step["completions"] == 4
    assert 4 <= step["tokens"] <= 32


def test_no_steps_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "rl", "--steps", "0"]) == 2
    assert "--steps: must be at least 1, got 0" in capsys.readouterr().err
