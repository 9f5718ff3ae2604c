from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, run_twice, verdicts

from stepcredit_study.analyses.policy_learning import Arm, Course, Materials
from stepcredit_study.claims import rl
from stepcredit_study.claims.rl import ARMS, EXPERIMENT, FIXED, FLOORED, LABELS, ONLINE, OUTCOME, course
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.world import World


def progress(name: str, *, ahead: dict[str, float], reward: float = 1.0) -> float:
    """Accuracy rises by 0.2 along the way, of some arms by more; rewards rise by ``reward``."""
    arm, quantity, step = name.split("/")
    share = int(step) / 20
    if quantity == "accuracy":
        return 0.4 + share * (0.2 + ahead.get(arm, 0.0))
    return reward * share if quantity in ("reward", "wrong_reward") else 0.9 - 0.1 * share


def test_arms_that_are_ahead_are_better_and_faster(tiny_scale: Scale) -> None:
    scale = at_full_length(tiny_scale)
    ahead = {FIXED: 0.1, FLOORED: 0.1, ONLINE: -0.1}
    finding = EXPERIMENT.conclude(made_up(lambda name: progress(name, ahead=ahead)), scale)
    assert verdicts(finding)[:6] == ["holds"] * 4 + ["does not hold"] * 2


def test_a_reward_that_rises_without_accuracy_was_fooled(tiny_scale: Scale) -> None:
    scale = at_full_length(tiny_scale)
    seeds = made_up(lambda name: progress(name, ahead={FIXED: -0.2}))
    finding = EXPERIMENT.conclude(seeds, scale)
    assert check_of(finding, f"learned {LABELS[FIXED]} fools it").verdict == "holds"
    assert check_of(finding, f"learned {LABELS[FLOORED]} fools it").verdict == "does not hold"
    assert check_of(finding, "tells right from wrong").verdict == "holds"


def test_the_goal_is_reached_between_two_measurements(tiny_scale: Scale) -> None:
    finding = EXPERIMENT.conclude(
        made_up(lambda name: progress(name, ahead={FIXED: 0.2, FLOORED: -0.2})), at_full_length(tiny_scale)
    )
    rows = {name: cells[-1] for name, cells in finding.tables[0].rows}
    # Twice as fast: half of 20 steps of 64 rollouts. Not there: all of them.
    assert str(rows[LABELS[FIXED]]).startswith("640 ")
    assert str(rows[LABELS[FLOORED]]).startswith("1280 ")


def at_full_length(scale: Scale) -> Scale:
    return replace(scale, sizes=replace(scale.sizes, test_prompts=60))


def test_every_arm_learns_on_the_same_problems_and_is_kept(
    tiny_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Arm, Course, Materials]] = []

    def learned(arm: Arm, plan: Course, materials: Materials) -> dict[str, list[float]]:
        asked.append((arm, plan, materials))
        values = [0.1 * step for step in range(len(plan.measured_at))]
        return dict.fromkeys(("accuracy", "reward", "auc", "wrong_reward"), values)

    def trained(_: Any, method: str) -> Path:
        return tiny_world.store.root / method

    monkeypatch.setattr(rl, "learning_curve", learned)
    monkeypatch.setattr(World, "train", trained)
    numbers, _ = run_twice(EXPERIMENT, tiny_world)
    plan = course(tiny_world.scale)
    assert [arm for arm, _, _ in asked] == list(ARMS.values())
    assert len(numbers) == len(ARMS) * 4 * len(plan.measured_at)
    problems = [prompt.prompt for prompt in asked[0][2].problems]
    assert len(problems) == plan.steps * plan.prompts
    assert all([prompt.prompt for prompt in materials.problems] == problems for _, _, materials in asked)
    EXPERIMENT.measure(tiny_world, EXPERIMENT.prepare(tiny_world))
    assert len(asked) == len(ARMS)
    assert numbers[f"{OUTCOME}/accuracy/0"] == 0.0
