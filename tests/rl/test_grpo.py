"""Reward functions in TRL's own trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.rl.conftest import lab_prm

from stepcredit.checkpoints import load_tokenizer
from stepcredit.lab.policies import policy_path
from stepcredit.lab.task import make_prompts
from stepcredit.rl import OnlinePRM, OnlineStepRewards, StepRewards
from stepcredit.training.config import TrainConfig

pytest.importorskip("trl")


def right(completions: Any, answer: Any, **_: Any) -> list[float]:
    return [
        float(completion[0]["content"].rpartition("#")[2] == expected)
        for completion, expected in zip(completions, answer, strict=True)
    ]


def trained(rewards: list[Any], folder: Path, **settings: Any) -> Any:
    """A trainer after two steps on four problems."""
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    rows = [
        {"prompt": [{"role": "user", "content": prompt.prompt}], "answer": prompt.answer}
        for prompt in make_prompts("train", seed=0, count=4)
    ]
    trainer = GRPOTrainer(
        model=str(policy_path("mid")),
        processing_class=load_tokenizer(policy_path("mid")),
        reward_funcs=rewards,
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=2,
            per_device_train_batch_size=8,
            per_device_eval_batch_size=8,
            num_generations=4,
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:2]),
    )
    trainer.train()
    return trainer


@pytest.mark.slow
def test_rewards_reach_the_trainer_and_clipped_ones_are_counted(tmp_path: Path) -> None:
    rewards = StepRewards(lab_prm())
    seen: list[float | None] = []

    def watched(**columns: Any) -> list[float | None]:
        given = rewards(**columns)
        seen.extend(given)
        return given

    trainer = trained([right, watched], tmp_path, max_completion_length=12)
    rows = [row for row in trainer.state.log_history if "rewards/watched/mean" in row]
    means = [row["rewards/watched/mean"] for row in rows]
    for number, mean in enumerate(means):
        given = [reward for reward in seen[8 * number : 8 * number + 8] if reward is not None]
        assert mean == pytest.approx(sum(given) / len(given), abs=1e-4)
    # Solutions have four steps of six characters, so none ends within twelve tokens.
    assert [row["step_rewards_min/clipped"] for row in rows] == [1.0, 1.0]
    assert [row["completions/clipped_ratio"] for row in rows] == [1.0, 1.0]


@pytest.mark.slow
def test_an_online_model_learns_in_training_and_not_in_evaluation(tmp_path: Path) -> None:
    config = TrainConfig(beta=0.5, learning_rate=1e-3, step_rule="newline", batch_size=8)
    prm = OnlinePRM(policy_path("mid"), config)
    trainer = trained([right, OnlineStepRewards(prm, right)], tmp_path, max_completion_length=64)
    assert prm.num_updates == 2
    trainer.evaluate()
    assert prm.num_updates == 2
    row = next(row for row in trainer.state.log_history if "online_step_rewards_min/loss" in row)
    assert row["online_step_rewards_min/loss"] > 0
