from __future__ import annotations

from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, planned, run_twice, verdicts

from stepcredit_study.claims.main import OBJECTIVES
from stepcredit_study.claims.policy import (
    AS_PUBLISHED,
    AS_REWARD,
    BASE,
    EXPERIMENT,
    GREEDY,
    NATS,
    PAPER,
    conclude,
    lead_over_best,
    rank_correlation,
)
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Seeds
from stepcredit_study.frame.world import World


def papers_numbers(name: str) -> float:
    """Accuracy as policy and as reward model in the paper."""
    method, _, how = name.replace(AS_PUBLISHED, "").partition("/")
    as_policy, as_reward = PAPER[method]
    return float((as_reward if how == AS_REWARD else as_policy) or 0.0) / 100


def test_the_papers_numbers_give_its_verdicts_and_rank_correlation(tiny_scale: Scale) -> None:
    finding = conclude(made_up(papers_numbers), tiny_scale)
    assert verdicts(finding) == ["holds"] * 6  # three claims, with either beta
    # Ranks as reward models 1, 4, 2, 3 (DPO, KTO, NCA, CE), as policies 4, 1, 2, 3: the squared differences
    # sum to 9 + 9 + 0 + 0, so Spearman's is 1 - 6 * 18 / (4 * 15).
    assert check_of(finding, "The best reward model").here.count("-0.80") == 4  # mean, both ends, the paper's
    measurement = {
        f"{name}/{how}": papers_numbers(f"{name}/{how}") for name in PAPER for how in (GREEDY, AS_REWARD)
    }
    assert rank_correlation(measurement) == pytest.approx(1 - 6 * 18 / 60)


def test_a_best_reward_model_that_is_the_best_policy_fails_the_claim(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: 0.9 if name.startswith("implicit-dpo") else papers_numbers(name))
    finding = conclude(seeds, tiny_scale)
    check = check_of(finding, "The best reward model")
    # One objective is both, so that there is no lead.
    assert check.verdict == "does not hold"
    assert "+0.0 [+0.0, +0.0]" in check.here
    assert check_of(finding, "A model trained as a reward model").verdict == "does not hold"


def test_which_objectives_are_best_is_decided_by_the_other_seeds() -> None:
    """The best of noisy numbers leads in its own seed; in the others it need not."""
    dpo, kto = (f"implicit-{name}/{GREEDY}" for name in ("dpo", "kto"))
    equal = {f"{name}/{how}": 0.5 for name in OBJECTIVES for how in (GREEDY, AS_REWARD)}
    equal[f"implicit-nca/{AS_REWARD}"] = 0.6
    seeds = Seeds([equal | {dpo: 0.7}, equal | {kto: 0.7}])
    # Seed 0 is judged by seed 1, which names KTO as policy: .5 there; and the other way round.
    assert lead_over_best(seeds).values == (0.0, 0.0)
    assert lead_over_best(Seeds([equal | {dpo: 0.7}] * 2)).values == pytest.approx((0.2, 0.2))


def test_each_beta_has_its_rows(tiny_scale: Scale) -> None:
    rows = dict(conclude(made_up(papers_numbers), tiny_scale).tables[0].rows)
    assert [*rows] == [BASE, *OBJECTIVES, *(f"{name}{AS_PUBLISHED}" for name in OBJECTIVES)]
    once = conclude(
        Seeds([{f"{name}/{how}": 0.5 for name in PAPER for how in (GREEDY, "sampled", AS_REWARD, NATS)}]),
        tiny_scale,
    )
    assert [name for name, _ in once.tables[0].rows] == [BASE, *OBJECTIVES]


def test_policies_that_are_all_alike_have_no_rank_correlation() -> None:
    alike = {f"{name}/{how}": 0.5 for name in OBJECTIVES for how in (GREEDY, AS_REWARD)}
    assert rank_correlation(alike) == 0.0


def test_the_papers_scale_is_planned(tmp_path: Path) -> None:
    commands = planned(EXPERIMENT, tmp_path)
    # Training, development and test responses; each model writes twice, and the base greedily too.
    assert commands.count("sample") == 3 + 2 * len(OBJECTIVES) + 1


@pytest.mark.slow
def test_on_a_tiny_lab(tiny_world: World) -> None:
    measured, _ = run_twice(EXPERIMENT, tiny_world)
    assert all(0 <= value <= 1 for name, value in measured.items() if NATS not in name)
    assert all(measured[f"{name}{beta}/{NATS}"] > 0 for name in OBJECTIVES for beta in ("", AS_PUBLISHED))
