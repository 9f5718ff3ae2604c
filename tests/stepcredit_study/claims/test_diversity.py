from __future__ import annotations

from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, planned, run_twice, verdicts

from stepcredit_study.claims.diversity import DISSIMILAR, EXPERIMENT, RANDOM, TWO_POLICIES, prepare
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.world import World


def verdicts_for(scale: Scale, gains: dict[str, float]) -> list[str]:
    """Verdicts where data sets add these gains to each objective."""

    def rule(name: str) -> float:
        return 0.5 + sum(gain for data, gain in gains.items() if data in name)

    return verdicts(EXPERIMENT.conclude(made_up(rule), scale))


def test_data_that_add_nothing_do_not_help(tiny_scale: Scale) -> None:
    assert verdicts_for(tiny_scale, {TWO_POLICIES: -0.01, DISSIMILAR: -0.02}) == ["holds"] * 4


def test_data_that_add_five_points_help(tiny_scale: Scale) -> None:
    assert verdicts_for(tiny_scale, {TWO_POLICIES: 0.05}) == ["does not hold", "holds"] * 2
    assert verdicts_for(tiny_scale, {DISSIMILAR: 0.05}) == ["holds", "does not hold"] * 2


def test_fewer_instructions_are_compared_with_as_good_as_equally_many(tiny_scale: Scale) -> None:
    def rule(name: str) -> float:
        return 0.5 - 0.1 * (RANDOM in name) - 0.04 * (DISSIMILAR in name)

    check = check_of(
        EXPERIMENT.conclude(made_up(rule), tiny_scale), "near-duplicate instructions does not help CE"
    )
    assert "-4.0" in check.here
    assert "+6.0" in check.here


@pytest.mark.slow
def test_half_of_the_responses_are_another_policys(tiny_world: World) -> None:
    from stepcredit.data import read_rollouts

    numbers, finding = run_twice(EXPERIMENT, tiny_world)
    rollouts = list(read_rollouts(prepare(tiny_world).data[TWO_POLICIES]))
    assert sorted({rollout.policy for rollout in rollouts if rollout.policy}) == ["mid", "weak"]
    assert sum(rollout.policy == "mid" for rollout in rollouts) == len(rollouts) // 2 == 24
    assert numbers[f"{DISSIMILAR}/instructions"] <= numbers["usual/instructions"] == 12
    assert numbers[f"{RANDOM}/instructions"] == round(12 * tiny_world.scale.dissimilar_share)
    assert "Of 12" in finding.notes[0]


def test_at_the_papers_scale_every_data_set_is_trained_on_by_both_objectives(tmp_path: Path) -> None:
    assert planned(EXPERIMENT, tmp_path).count("train") == 8
