from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stepcredit.data import read_prompts, read_rollouts, rollout_to_json, write_rows
from stepcredit.errors import UserError
from stepcredit.lab.files import write_policies, write_prompts, write_true_labels
from stepcredit.lab.oracles import label_steps
from stepcredit.lab.policies import POLICY_NAMES
from stepcredit.lab.task import DOMAINS, make_prompts
from stepcredit.runs import read_manifest
from stepcredit.types import Rollout


def test_prompts_are_those_of_the_split_and_seed(tmp_path: Path) -> None:
    write_prompts(tmp_path / "usual.jsonl", "test", seed=3, count=5)
    assert list(read_prompts(tmp_path / "usual.jsonl")) == make_prompts("test", seed=3, count=5)
    domain = next(reversed(DOMAINS.values()))
    write_prompts(tmp_path / "other.jsonl", "test", seed=3, count=5, domain=domain)
    assert list(read_prompts(tmp_path / "other.jsonl")) == make_prompts(
        "test", seed=3, count=5, domain=domain
    )
    manifest = read_manifest(tmp_path / "other.jsonl")
    assert manifest is not None
    assert manifest["settings"]["domain"] == domain.name


def test_what_is_there_stays_and_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    write_prompts(path, "train", seed=0, count=3)
    made = path.stat().st_mtime_ns
    write_prompts(path, "train", seed=0, count=3)
    assert path.stat().st_mtime_ns == made
    with pytest.raises(UserError, match="made with other settings"):
        write_prompts(path, "train", seed=1, count=3)
    write_prompts(path, "train", seed=1, count=3, overwrite=True)
    assert list(read_prompts(path)) == make_prompts("train", seed=1, count=3)


def test_true_labels_are_the_oracles(tmp_path: Path) -> None:
    rollout = Rollout(id="p/0", prompt_id="p", prompt="7*8+5=", response="7*8=6\n6+5=2\n#2", correct=False)
    write_rows(tmp_path / "graded.jsonl", [rollout_to_json(rollout)])
    write_true_labels(tmp_path / "graded.jsonl", tmp_path / "labelled.jsonl")
    (labelled,) = read_rollouts(tmp_path / "labelled.jsonl")
    assert labelled.step_labels == label_steps(rollout)
    assert labelled.response == rollout.response


def test_true_labels_may_end_with_the_first_wrong_step(tmp_path: Path) -> None:
    """What follows an error is left out; a right response stays whole."""
    wrong = Rollout(
        id="p/0",
        prompt_id="p",
        prompt="7*8+5-3=",
        response="7*8=6\n6+5=2\n2-3=9\n#9",
        finish_reason="stop",
        response_token_ids=(1, 2, 3),
        tokenizer="sha256:0",
    )
    right = replace(wrong, id="p/1", response="7*8=6\n6+5=1\n1-3=8\n#8")
    write_rows(tmp_path / "graded.jsonl", [rollout_to_json(rollout) for rollout in (wrong, right)])
    write_true_labels(tmp_path / "graded.jsonl", tmp_path / "cut.jsonl", to_first_wrong=True)
    cut, whole = read_rollouts(tmp_path / "cut.jsonl")
    assert cut.response == "7*8=6\n6+5=2\n"
    assert cut.step_labels == label_steps(wrong)[:2]
    assert cut.finish_reason == "length"
    # Recorded tokens are those of the whole response: training would refuse the row for them.
    assert cut.response_token_ids is None
    assert whole == replace(right, step_labels=label_steps(right))
    with pytest.raises(UserError, match="made with other settings"):
        write_true_labels(tmp_path / "graded.jsonl", tmp_path / "cut.jsonl")


def test_policies_are_written_once(tmp_path: Path) -> None:
    write_policies(tmp_path / "policies")
    made = [(tmp_path / "policies" / name / "config.json").stat().st_mtime_ns for name in POLICY_NAMES]
    write_policies(tmp_path / "policies")
    assert made == [
        (tmp_path / "policies" / name / "config.json").stat().st_mtime_ns for name in POLICY_NAMES
    ]
