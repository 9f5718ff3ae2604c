from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.processes import partial_rows, run_until_killed
from tests.tutor_rollouts import tutor_rollouts

from stepcredit.chat_templates import ChatOptions
from stepcredit.checkpoints import LoadOptions
from stepcredit.cli import main
from stepcredit.data import read_rollouts, rollout_to_json, write_rows
from stepcredit.errors import DataError, UserError
from stepcredit.lab.oracles import label_steps
from stepcredit.lab.policies import policy_path
from stepcredit.lab.tutor import WEAK
from stepcredit.pipelines import label_autopsv
from stepcredit.pipelines.label_autopsv import Options, Result
from stepcredit.runs import read_manifest
from stepcredit.training.config import TrainConfig

CONFIG = TrainConfig(
    family="value-head", objective="token-ce", learning_rate=5e-4, batch_size=8, step_rule="newline"
)


def _write(path: Path, split: str, *, num_problems: int = 6) -> Path:
    rollouts = tutor_rollouts(WEAK, num_problems, 4, split=split, seed=7)
    labelled = (replace(rollout, step_labels=label_steps(rollout)) for rollout in rollouts)
    write_rows(path, map(rollout_to_json, labelled))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("autopsv")
    _write(root / "train.jsonl", "train")
    _write(root / "dev.jsonl", "development")
    return root


def _options(world: Path, out: str, **changes: Any) -> Options:
    given: dict[str, Any] = {
        "graded": world / "train.jsonl",
        "dev": world / "dev.jsonl",
        "model": str(policy_path("mid")),
        "out": world / out,
        "verifier": world / "verifier",
        "config": CONFIG,
    }
    return Options(**{**given, **changes})


@pytest.fixture(scope="module")
def result(world: Path) -> Result:
    return label_autopsv.run(_options(world, "out.jsonl"))


@pytest.mark.slow
def test_every_step_is_labelled_and_nothing_else_changes(result: Result, world: Path) -> None:
    before, after = list(read_rollouts(world / "train.jsonl")), list(read_rollouts(result.out))
    for old, new in zip(before, after, strict=True):
        assert new.step_labels is not None
        assert old.step_labels is not None
        assert [label.end for label in new.step_labels] == [label.end for label in old.step_labels]
        labels = [label.label for label in new.step_labels]
        # Right up to a step, wrong from it on.
        assert labels == sorted(labels, reverse=True)
        assert len(new.extras["autopsv"]["confidences"]) == len(labels) + 1
        assert replace(new, step_labels=old.step_labels, extras={}) == old
    assert result.counts["labelled"] == 24
    assert -1 <= result.threshold <= 0
    assert result.balanced_accuracy is not None
    assert result.balanced_accuracy >= 0.5


@pytest.mark.slow
def test_the_ledger_holds_training_and_reading(result: Result, world: Path) -> None:
    verifier = read_manifest(world / "verifier")
    assert verifier is not None
    assert result.ledger["trained_tokens"] == verifier["ledger"]["trained_tokens"] > 0
    assert result.ledger["scored_tokens"] > verifier["ledger"]["scored_tokens"]
    assert result.ledger["model_parameters"] > 0
    assert json.loads(json.dumps(result.to_json()))["threshold"] == result.threshold
    assert "balanced accuracy" in result.to_text()


@pytest.mark.slow
def test_a_second_run_does_nothing_and_another_threshold_reuses_the_verifier(
    result: Result, world: Path
) -> None:
    trained = (world / "verifier" / "model.safetensors").stat().st_mtime_ns
    assert label_autopsv.run(_options(world, "out.jsonl")) == replace(result, already_done=True)
    apart = LoadOptions(chat=ChatOptions(boundary="apart"))
    with pytest.raises(UserError, match="other settings or inputs"):
        label_autopsv.run(_options(world, "out.jsonl", load=apart))
    given = label_autopsv.run(_options(world, "given.jsonl", threshold=-0.5))
    assert (given.threshold, given.balanced_accuracy) == (-0.5, None)
    by_steps = label_autopsv.run(_options(world, "steps.jsonl", choose_by="step-labels"))
    assert by_steps.balanced_accuracy is not None
    assert (world / "verifier" / "model.safetensors").stat().st_mtime_ns == trained


@pytest.mark.slow
def test_choosing_by_step_labels_needs_them_on_the_development_data(
    result: Result, world: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (world / "dev.jsonl").read_text().splitlines()]
    for row in rows:
        row["step_labels"] = row["step_labels"][:-1]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = _options(
        world,
        "short.jsonl",
        dev=tmp_path / "dev.jsonl",
        verifier=tmp_path / "verifier",
        choose_by="step-labels",
    )
    with pytest.raises(DataError, match="no step labels at the ends"):
        label_autopsv.run(options)


@pytest.mark.slow
def test_a_process_that_was_killed_while_it_labels_is_the_same_run(
    result: Result, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_autopsv, "_READ_AT_ONCE", 7)
    words = ["label", "autopsv", str(world / "train.jsonl"), "--dev", str(world / "dev.jsonl")]
    words += ["--model", str(policy_path("mid")), "--verifier", str(world / "verifier"), "--device", "cpu"]
    words += ["--learning-rate", "5e-4", "--batch-size", "8", "--steps", "newline"]
    killed, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    pieces = {"stepcredit.pipelines.label_autopsv._READ_AT_ONCE": 7}
    run_until_killed([*words, "--out", str(killed)], tmp_path / "log", rows=10, settings=pieces)
    assert partial_rows(killed) == 10
    for out in (killed, whole):
        assert main([*words, "--out", str(out)]) == 0
    assert killed.read_bytes() == whole.read_bytes()
    one, other = (read_manifest(out) for out in (killed, whole))
    assert one is not None
    assert other is not None
    for name in ("ledger", "counts", "threshold", "balanced_accuracy", "settings_hash"):
        assert one[name] == other[name], name


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"config": replace(CONFIG, objective="ce")}, "--objective"),
        ({"config": TrainConfig()}, "--family"),
        ({"threshold": 0.5}, "--threshold"),
        ({"threshold": -2.0}, "--threshold"),
    ],
)
def test_options_that_are_no_autopsv_are_refused(tmp_path: Path, changes: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        _options(tmp_path, "out.jsonl", **changes)
