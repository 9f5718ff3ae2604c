from __future__ import annotations

from pathlib import Path

import pytest
from tests.experiments.made_up import check_of, made_up, planned, run_twice, verdicts

from stepcredit.experiments.main import OBJECTIVES
from stepcredit.experiments.policy import BASE, EXPERIMENT, GREEDY, PAPER, REWARD, conclude, rank_correlation
from stepcredit.reproduction.scale import Scale
from stepcredit.reproduction.world import World


def papers_numbers(name: str) -> float:
    """Accuracy as policy and as reward model in the paper."""
    method, _, how = name.partition("/")
    as_policy, as_reward = PAPER[method]
    return float((as_reward if how == REWARD else as_policy) or 0.0) / 100


def test_the_papers_numbers_give_its_verdicts_and_rank_correlation(tiny_scale: Scale) -> None:
    found = conclude(made_up(papers_numbers), tiny_scale)
    assert verdicts(found) == ["holds", "holds", "holds"]
    # Ranks as reward models 1, 4, 2, 3 (DPO, KTO, NCA, CE), as policies 4, 1, 2, 3: the squared differences
    # sum to 9 + 9 + 0 + 0, so Spearman's is 1 - 6 * 18 / (4 * 15).
    assert check_of(found, "best reward model").here.count("-0.80") == 4  # mean, both ends, the paper's
    measurement = {
        f"{name}/{how}": papers_numbers(f"{name}/{how}") for name in PAPER for how in (GREEDY, REWARD)
    }
    assert rank_correlation(measurement) == pytest.approx(1 - 6 * 18 / 60)


def test_a_best_reward_model_that_is_the_best_policy_fails_the_claim(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: 0.9 if name.startswith("implicit-dpo") else papers_numbers(name))
    found = conclude(seeds, tiny_scale)
    check = check_of(found, "best reward model")
    assert check.verdict == "does not hold"
    assert "implicit-kto less implicit-dpo is -43.4" in check.here
    assert check_of(found, "worse policy").verdict == "does not hold"


def test_ranks_stand_beside_accuracies(tiny_scale: Scale) -> None:
    rows = dict(conclude(made_up(papers_numbers), tiny_scale).tables[0].rows)
    assert [rows[name][1] for name in OBJECTIVES] == ["4", "1", "2", "3"]
    assert [rows[name][5] for name in OBJECTIVES] == ["1", "4", "2", "3"]
    assert rows[BASE][1] is None


def test_policies_that_are_all_alike_have_no_rank_correlation() -> None:
    alike = {f"{name}/{how}": 0.5 for name in OBJECTIVES for how in (GREEDY, REWARD)}
    assert rank_correlation(alike) == 0.0


def test_the_papers_scale_is_planned(tmp_path: Path) -> None:
    commands = planned(EXPERIMENT, tmp_path)
    # Training, development and test responses; each model writes twice, and the base greedily too.
    assert commands.count("sample") == 3 + 2 * len(OBJECTIVES) + 1


@pytest.mark.slow
def test_on_a_tiny_lab(tiny_world: World) -> None:
    measured, _ = run_twice(EXPERIMENT, tiny_world)
    assert all(0 <= value <= 1 for value in measured.values())
    assert len(measured) == 2 * (1 + len(OBJECTIVES)) + len(OBJECTIVES)
