from __future__ import annotations

from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, planned, run_twice, verdicts

from stepcredit_study.claims.reference_free import COMBINATIONS, EXPERIMENT, UNTRAINED, WITH, WITHOUT, variant
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.variants import DPO_AND_CE
from stepcredit_study.frame.world import World


def test_combinations_that_are_all_alike_lose_nothing(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: 0.5 - 0.1 * (UNTRAINED in name))
    assert verdicts(EXPERIMENT.conclude(seeds, tiny_scale)) == ["holds"] * 8


def test_scoring_without_what_training_had_may_lose(tiny_scale: Scale) -> None:
    lost = variant("implicit-ce", WITH, WITHOUT)
    seeds = made_up(lambda name: 0.5 - 0.1 * (UNTRAINED in name) - 0.06 * (lost in name))
    finding = EXPERIMENT.conclude(seeds, tiny_scale)
    assert check_of(finding, "CE trained with and scored without").verdict == "does not hold"
    assert verdicts(finding).count("holds") == 7


def test_an_untrained_model_that_is_as_good_refutes(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: 0.5 + 0.1 * (UNTRAINED in name))
    finding = EXPERIMENT.conclude(seeds, tiny_scale)
    assert check_of(finding, "DPO's four combinations").verdict == "does not hold"


@pytest.mark.slow
def test_the_reference_changes_scores_of_the_same_model(tiny_world: World) -> None:
    from stepcredit.evaluation.score_columns import read_score_columns

    numbers, _ = run_twice(EXPERIMENT, tiny_world)
    assert all(
        variant(method, *combination) in numbers for method in DPO_AND_CE for combination in COMBINATIONS
    )
    scores = EXPERIMENT.prepare(tiny_world).dev_scores
    for training in (WITH, WITHOUT):
        with_it, without = (
            read_score_columns(scores[variant("implicit-ce", training, scoring)]).scores["sum"]
            for scoring in (WITH, WITHOUT)
        )
        # A log-probability is never positive; a log-ratio of a barely trained model is near zero.
        assert without.max() < 0
        assert abs(with_it).mean() < abs(without).mean()


def test_at_the_papers_scale_each_objective_is_trained_with_and_without(tmp_path: Path) -> None:
    assert planned(EXPERIMENT, tmp_path).count("train") == 4
