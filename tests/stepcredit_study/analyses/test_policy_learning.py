from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepcredit.grading.registry import make_grader
from stepcredit.lab.policies import policy_path
from stepcredit.lab.task import make_prompts
from stepcredit.training.config import TrainConfig
from stepcredit_study.analyses.policy_learning import Arm, Course, Materials, learning_curve, reward_numbers

pytest.importorskip("trl")


@pytest.fixture
def materials(strong_prm: Path) -> Materials:
    """The strong policy against the middle one as the fixed reward model."""
    return Materials(
        policy=policy_path("mid"),
        prm=strong_prm,
        online=TrainConfig(beta=0.5, learning_rate=1e-3, step_rule="newline", batch_size=8),
        problems=make_prompts("train", seed=0, count=4),
        test=make_prompts("test", seed=0, count=4),
        grader=make_grader("exact", answer_pattern=r"#(\d)\s*$"),
        seed=0,
    )


@pytest.mark.slow
def test_arms_begin_alike_and_are_measured_as_often(materials: Materials) -> None:
    plan = Course(steps=2, prompts=2, responses=4, every=1, test_responses=2)
    arms = {
        "outcome": Arm(),
        "floor": Arm(process="fixed", floor=0.1),
        "online": Arm(process="online"),
        "slow": Arm(process="online", rate=1e-3),
        "continued": Arm(process="continued"),
    }
    curves = {name: learning_curve(arm, plan, materials) for name, arm in arms.items()}
    for curve in curves.values():
        assert {len(values) for values in curve.values()} == {3}
        assert np.isfinite(list(curve.values())).all()
        assert curve["accuracy"][0] == curves["outcome"]["accuracy"][0]
    # Without a reward of its own an arm's responses are judged by the fixed model.
    assert curves["continued"]["reward"][0] == pytest.approx(curves["outcome"]["reward"][0], abs=1e-4)
    assert abs(curves["slow"]["reward"][-1]) < abs(curves["online"]["reward"][-1])
    assert curves["outcome"]["reward"][0] < 0
    assert curves["online"]["reward"][0] == pytest.approx(0.0, abs=1e-4)
    assert curves["online"]["reward"][-1] != pytest.approx(0.0, abs=1e-3)


def test_a_reward_is_judged_on_right_against_wrong() -> None:
    rewards, right = np.array([1.0, 0.0, -1.0, -3.0]), np.array([True, True, False, False])
    assert reward_numbers(rewards, right) == {"reward": -0.75, "auc": 1.0, "wrong_reward": -2.0}
    assert reward_numbers(rewards, np.array([True] * 4)) == {"reward": -0.75, "auc": 0.5, "wrong_reward": 0.0}
