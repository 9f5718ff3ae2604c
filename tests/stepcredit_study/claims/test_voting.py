from __future__ import annotations

from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, planned, run_twice, verdicts

from stepcredit.evaluation.samples import group
from stepcredit.types import Rollout
from stepcredit_study.claims.voting import ALONE, EXPERIMENT, METHODS, VOTE, conclude, ratio_needed
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.world import World


def numbers(name: str) -> float:
    """The paper's pattern: weak alone, all about as good in a vote."""
    method, _, how = name.partition("/")
    if method == "majority":
        return 0.49
    if how.startswith(ALONE):
        return 0.45 if method == "implicit-kto" else 0.49
    return 0.52


def test_the_papers_pattern_holds(tiny_scale: Scale) -> None:
    assert verdicts(conclude(made_up(numbers), tiny_scale)) == ["holds"] * 3


def test_votes_that_lose_to_the_plain_one_fail_the_claim(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: 0.4 if f"implicit-nca/{VOTE}" in name else numbers(name))
    finding = conclude(seeds, tiny_scale)
    check = check_of(finding, "beats the plain vote")
    assert check.verdict == "does not hold"
    assert "implicit-nca -9.0" in check.here
    assert check_of(finding, "beats the implicit PRM alone").verdict == "does not hold"


def test_a_strong_model_that_gains_most_fails_the_last_claim(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: 0.7 if f"implicit-dpo/{VOTE}" in name else numbers(name))
    check = check_of(conclude(seeds, tiny_scale), "adds more")
    assert check.verdict == "does not hold"
    # KTO gains 7 points, DPO 21 and the other two 3 each: 9 on average.
    assert check.here.startswith("difference -2.0")


def test_every_method_has_a_row_beside_the_papers(tiny_scale: Scale) -> None:
    table = conclude(made_up(numbers), tiny_scale).tables[0]
    assert [name for name, _ in table.rows] == ["plain vote", *METHODS]
    assert dict(table.rows)["implicit-ce"][-2:] == ("48.4", "51.9")


def test_the_papers_scale_is_planned(tmp_path: Path) -> None:
    commands = planned(EXPERIMENT, tmp_path)
    assert commands.count("score") == 2 * len(METHODS)


@pytest.mark.slow
def test_on_a_tiny_lab(tiny_world: World) -> None:
    measured, _ = run_twice(EXPERIMENT, tiny_world)
    assert all(
        0 <= value <= 1
        for name, value in measured.items()
        if "temperature" not in name and "ratio" not in name
    )
    assert measured["ratio needed"] >= 1
    assert measured["implicit-ce/weight/right"] > 0
    # A vote of two falls to the better-scored answer, or both abstain.
    assert measured[f"implicit-ce/{VOTE}/2"] == pytest.approx(measured[f"implicit-ce/{ALONE}/2"], abs=0.3)
    assert measured["implicit-ce/temperature"] > 0


def test_the_ratio_needed_is_of_votes_where_a_vote_fails() -> None:
    def rows(*answers: str) -> list[Rollout]:
        return [
            Rollout(
                id=f"{answers}{i}",
                prompt_id=str(answers),
                prompt="?",
                response=a,
                prediction=a,
                correct=a == "r",
            )
            for i, a in enumerate(answers)
        ]

    fails, fails_more, works, hopeless = "rabb", "raaabb", "rrab", "abb"
    assert ratio_needed(group(rows(*fails))) == 2.0
    assert ratio_needed(group([*rows(*fails), *rows(*fails_more), *rows(*works), *rows(*hopeless)])) == 2.5
    assert ratio_needed(group(rows(*works))) == 1.0
