from __future__ import annotations

from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import made_up, planned, run_twice, verdicts

from stepcredit_study.claims.step_labels import CONTROL, EXPERIMENT, MONTE_CARLO, TRUE
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Seeds
from stepcredit_study.frame.world import World


def verdicts_for(scale: Scale, gains: dict[str, float]) -> list[str]:
    """Verdicts where a second stage on some labels adds these gains."""

    def rule(name: str) -> float:
        return 0.5 + sum(gain for labels, gain in gains.items() if labels in name)

    return verdicts(EXPERIMENT.conclude(made_up(rule), scale))


def test_a_second_stage_that_adds_nothing_does_not_help(tiny_scale: Scale) -> None:
    assert verdicts_for(tiny_scale, {MONTE_CARLO: -0.1, TRUE: 0.0}) == ["holds"] * 4


def test_a_second_stage_that_adds_five_points_helps(tiny_scale: Scale) -> None:
    assert verdicts_for(tiny_scale, {MONTE_CARLO: 0.05}) == ["does not hold", "holds"] * 2
    assert verdicts_for(tiny_scale, {TRUE: 0.05}) == ["holds", "does not hold"] * 2


def test_without_the_truth_only_monte_carlo_labels_are_judged(tiny_scale: Scale) -> None:
    names = ("implicit-dpo", "implicit-ce")
    variants = [*names, *(f"{name}, then {labels}" for name in names for labels in (CONTROL, MONTE_CARLO))]
    numbers = {"pass@1": 0.4} | {
        name: 0.5 for name in variants for name in (name, *(f"{name}/{n}" for n in tiny_scale.n))
    }
    finding = EXPERIMENT.conclude(Seeds([numbers, numbers]), tiny_scale)
    assert verdicts(finding) == ["holds", "holds"]
    assert len(finding.tables[0].rows) == 6


def test_what_further_training_adds_is_told_apart_from_the_labels(tiny_scale: Scale) -> None:
    gains = {CONTROL: 0.02, TRUE: 0.05}

    def rule(name: str) -> float:
        return 0.5 + sum(gain for labels, gain in gains.items() if labels in name)

    why = EXPERIMENT.conclude(made_up(rule), tiny_scale).checks[1].why
    assert "on final answers again adds +2.0" in why


def test_labels_must_add_to_what_further_training_adds(tiny_scale: Scale) -> None:
    """Five points, four of which come without any label: that is no help of the labels."""
    assert verdicts_for(tiny_scale, {CONTROL: 0.04, TRUE: 0.05, MONTE_CARLO: 0.05}) == ["holds"] * 4
    assert verdicts_for(tiny_scale, {CONTROL: 0.01, TRUE: 0.05, MONTE_CARLO: 0.05}) == ["does not hold"] * 4


@pytest.mark.slow
def test_it_runs_on_a_tiny_lab(tiny_world: World) -> None:
    from stepcredit.checkpoints import PRMCard
    from stepcredit.data import read_rollouts

    numbers, _ = run_twice(EXPERIMENT, tiny_world)
    assert 0 <= numbers[f"implicit-ce, then {TRUE}/step AUC"] <= 1
    first = tiny_world.train("implicit-ce")
    beta = tiny_world.scale.config("implicit-ce").beta
    second = tiny_world.train("second-stage", tiny_world.true_labels(), start_from=first, beta=beta)
    # The reward stays relative to the model that the first stage started from.
    cards = [PRMCard.read(model) for model in (first, second)]
    assert cards[0].reference is not None
    assert cards[1].reference is not None
    assert cards[0].reference.weights_hash == cards[1].reference.weights_hash
    for rollout in read_rollouts(tiny_world.true_labels()):
        assert rollout.step_labels
        assert not rollout.correct or rollout.step_labels[-1].end == len(rollout.response)


def test_at_the_papers_scale_there_are_no_true_labels(tmp_path: Path) -> None:
    commands = planned(EXPERIMENT, tmp_path)
    assert commands.count("train") == 6  # both alone, then with answers again and Monte-Carlo labels
    assert commands.count("label math-shepherd") == 1
