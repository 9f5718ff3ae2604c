"""Step models are strong where their labels are true: the baselines' ceiling on the lab."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepcredit.data import read_scores, rollout_to_json, write_rows
from stepcredit.lab.oracles import label_steps
from stepcredit.lab.policies import policy_path
from stepcredit.lab.task import draw_problems
from stepcredit.lab.tutor import MID
from stepcredit.pipelines import score, train
from stepcredit.stats import auc
from stepcredit.training.config import TrainConfig
from stepcredit.types import Rollout


def _labelled(split: str, num_problems: int, samples: int) -> list[Rollout]:
    """Different responses of the mid tutor with the rule oracle's labels."""
    problems = draw_problems(split, seed=0, count=num_problems)
    distinct: dict[tuple[int, str], Rollout] = {}
    for index in range(samples):
        for number, (problem, response) in enumerate(
            zip(problems, MID.write(problems, seed=[0, index]), strict=True)
        ):
            rollout = Rollout(
                id=f"{number}-{index}",
                prompt_id=f"{split}{number}",
                index=index,
                prompt=problem.text,
                response=response,
                answer=problem.answer,
                correct=response[-1] == problem.answer,
                finish_reason="stop",
            )
            labelled = replace(rollout, step_labels=label_steps(rollout))
            distinct.setdefault((number, response), labelled)
    return list(distinct.values())


def _write(path: Path, rollouts: Iterable[Rollout]) -> Path:
    write_rows(path, map(rollout_to_json, rollouts))
    return path


@pytest.mark.slow
def test_an_implicit_model_of_true_step_labels_finds_nearly_every_wrong_step(tmp_path: Path) -> None:
    """Problems, prefixes and responses are new; 400 training problems hold every fact several times."""
    held_out = _labelled("test", 100, 4)
    graded = _write(tmp_path / "train.jsonl", _labelled("train", 400, 8))
    config = TrainConfig(
        objective="step-ce", beta=0.5, learning_rate=1e-3, batch_size=16, epochs=2, step_rule="newline"
    )
    train.run(
        train.Options(
            graded=graded, model=str(policy_path("mid")), out=tmp_path / "prm", config=config, seed=0
        )
    )
    source = _write(tmp_path / "test.jsonl", held_out)
    score.run(score.Options(input=source, prm=str(tmp_path / "prm"), out=tmp_path / "scores.jsonl"))
    values, right = [], []
    for rollout, scored in zip(held_out, read_scores(tmp_path / "scores.jsonl"), strict=True):
        assert rollout.step_labels is not None
        assert [step.end for step in scored.steps] == [label.end for label in rollout.step_labels]
        values += [step.value for step in scored.steps]
        right += [label.label > 0.5 for label in rollout.step_labels]
    assert auc(np.array(values), np.array(right)) > 0.98
