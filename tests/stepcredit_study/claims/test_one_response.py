from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, planned, run_twice, verdicts

from stepcredit.errors import DataError
from stepcredit_study.claims.one_response import EXPERIMENT, RATIOS, prepare
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.world import World


def accuracy(name: str, gain: float) -> float:
    """The same gain over a single response for every model; no pairs."""
    return 0.0 if name.endswith("pairs") else 0.4 + gain * ("implicit" in name)


def without_pairs_shift(scale: Scale, gain: float) -> list[str]:
    """Verdicts on the models, leaving out the one on pairs."""
    return verdicts(EXPERIMENT.conclude(made_up(lambda name: accuracy(name, gain)), scale))[:4]


def test_models_above_a_single_response(tiny_scale: Scale) -> None:
    assert without_pairs_shift(tiny_scale, 0.1) == ["holds"] * 4


def test_models_below_a_single_response(tiny_scale: Scale) -> None:
    assert without_pairs_shift(tiny_scale, -0.1) == ["does not hold"] * 4


def test_one_generator_without_a_gain_is_enough_to_refute(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: accuracy(name, -0.1 if "weak/implicit-ce 1:1/" in name else 0.1))
    assert verdicts(EXPERIMENT.conclude(seeds, tiny_scale))[:4] == [
        "does not hold",
        "holds",
        "holds",
        "holds",
    ]


@pytest.mark.slow
def test_dpo_finds_no_pair_and_is_refused(tiny_world: World) -> None:
    world = replace(tiny_world, scale=replace(tiny_world.scale, generators={"mid": "lab:mid"}))
    numbers, finding = run_twice(EXPERIMENT, world)
    assert [numbers[f"{ratio}/pairs"] for ratio in RATIOS] == [0.0, 0.0, 0.0]
    assert check_of(finding, "DPO cannot").verdict == "holds"
    assert numbers["1:1/right"] == numbers["1:1/wrong"]
    with pytest.raises(DataError, match="there is no pair"):
        world.train("implicit-dpo", prepare(world).data["1:1"])


def test_at_the_papers_scale_three_ratios_are_trained_by_two_objectives(tmp_path: Path) -> None:
    assert planned(EXPERIMENT, tmp_path).count("train") == 6
