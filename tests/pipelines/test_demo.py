from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.processes import kill_when

from stepcredit import ImplicitPRM
from stepcredit.checkpoints import PRMCard
from stepcredit.cli import main
from stepcredit.data import read_rollouts, read_scores
from stepcredit.pipelines.demo import lab_training

SMALL = [
    "--train-problems",
    "40",
    "--train-responses",
    "4",
    "--dev-problems",
    "8",
    "--test-problems",
    "6",
    "--test-responses",
    "8",
    "--epochs",
    "1",
    "--seed",
    "3",
]


def content_of(directory: Path) -> dict[str, str]:
    """Every data file of a demo's directory."""
    return {
        str(path.relative_to(directory)): path.read_text(encoding="utf-8")
        for path in sorted(directory.glob("*/*.jsonl"))
        if path.name != "train_log.jsonl"
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "run"
    assert main(["demo", "--out", str(out), *SMALL]) == 0
    return out


@pytest.mark.slow
def test_the_demo_leaves_every_file_that_the_other_commands_read(demo: Path) -> None:
    expected = [
        "policies/mid/model.safetensors",
        "train/prompts.jsonl",
        "train/rollouts.jsonl",
        "train/graded.jsonl",
        "prm/prm.json",
        "prm/train_log.jsonl",
        *(
            f"test-{policy}/{name}.jsonl"
            for policy in ("weak", "mid", "strong")
            for name in ("prompts", "graded", "scores")
        ),
        "summary.json",
        "report.html",
    ]
    assert [name for name in expected if not (demo / name).is_file()] == []
    assert not list(demo.rglob("*.partial"))
    assert PRMCard.read(demo / "prm").beta == lab_training().beta
    assert len(list(read_rollouts(demo / "test-mid" / "graded.jsonl"))) == 6 * 8


@pytest.mark.slow
def test_step_rewards_tile_the_response_and_sum_to_its_reward(demo: Path) -> None:
    rollouts = {rollout.id: rollout for rollout in read_rollouts(demo / "test-mid" / "graded.jsonl")}
    for score in read_scores(demo / "test-mid" / "scores.jsonl"):
        assert "".join(step.text for step in score.steps) == rollouts[score.id].response
        assert sum(step.reward for step in score.steps) == pytest.approx(score.reward, abs=1e-6)


@pytest.mark.slow
def test_the_summary_repeats_what_eval_says_of_the_files(
    demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--scores", f"implicit-prm={demo}/test-mid/scores.jsonl", "--n", "1,4", "--json"]
    assert main(["eval", "best-of-n", str(demo / "test-mid" / "graded.jsonl"), *words]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["results"]
    summary = json.loads((demo / "summary.json").read_text())["policies"]["mid"]["results"]
    said = {(row["method"], row["scorer"], row["aggregate"], row["n"]): row["accuracy"] for row in summary}
    compared = 0
    for row in rows:
        key = (row["method"], row["scorer"], row["aggregate"], row["n"])
        if key in said:
            assert said[key] == pytest.approx(row["accuracy"], abs=1e-12)
            compared += 1
    assert compared > 10


@pytest.mark.slow
def test_the_saved_prm_scores_as_the_files_say(demo: Path) -> None:
    prm = ImplicitPRM.from_pretrained(demo / "prm")
    score = next(iter(read_scores(demo / "test-mid" / "scores.jsonl")))
    rollout = next(iter(read_rollouts(demo / "test-mid" / "graded.jsonl")))
    again = prm.score(rollout.prompt, rollout.response)
    assert again.reward == pytest.approx(score.reward, abs=1e-4)
    assert [step.text for step in again.steps] == [step.text for step in score.steps]


@pytest.mark.slow
def test_a_finished_demo_runs_again_without_training(demo: Path) -> None:
    before = (demo / "prm" / "prm.json").stat().st_mtime_ns
    started = time.monotonic()
    assert main(["demo", "--out", str(demo), *SMALL]) == 0
    assert (demo / "prm" / "prm.json").stat().st_mtime_ns == before
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_other_settings_in_the_same_directory_are_refused(
    demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content_of(demo)
    assert main(["demo", "--out", str(demo), *SMALL, "--seed", "4"]) == 2
    assert "--overwrite" in capsys.readouterr().err.splitlines()[-1]
    assert content_of(demo) == before


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prm.partial", "test-mid/graded.jsonl"])
def test_a_demo_that_was_killed_goes_on_and_ends_the_same(demo: Path, tmp_path: Path, stage: str) -> None:
    out = tmp_path / "run"
    kill_when(["demo", "--out", str(out), *SMALL], tmp_path / "log", lambda: any(out.glob(stage + "*")))
    assert not (out / "report.html").exists()
    assert main(["demo", "--out", str(out), *SMALL]) == 0
    assert (out / "report.html").is_file()
    assert content_of(out) == content_of(demo)


@pytest.mark.parametrize(
    "size", ["--train-problems", "--train-responses", "--dev-problems", "--test-responses"]
)
def test_sizes_are_checked_before_anything_runs(
    size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path / "run"), size, "-5"]) == 2
    assert f"{size}: must be at least 1, got -5" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
