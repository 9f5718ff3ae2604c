"""Guided search beside picking at equal cost: measured in a tiny lab, and concluded from made-up numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, planned, run_twice, verdicts

from stepcredit_study.claims.search import (
    CONDITIONS,
    EXPERIMENT,
    FREE,
    GUIDED,
    PICK,
    STRATEGIES,
    USUAL,
    conclude,
)
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.world import World


def numbers(name: str) -> float:
    """Search gains as usual, and loses at temperature 1, where a floor helps a little."""
    condition, what = name.split("/")[0], name.rpartition("/")[2]
    picked = {"usual": 0.7, "free": 0.5, "floored": 0.6}[condition]
    if what == "tokens":
        return 35.0 * float(name.split("/")[-2])
    if what != "accuracy" or PICK in name.split("/"):
        return picked
    return picked + {"usual": 0.1, "free": -0.1, "floored": -0.05}[condition]


def test_each_strategy_is_judged_in_each_condition(tiny_scale: Scale) -> None:
    finding = conclude(made_up(numbers), tiny_scale)
    beats = ["holds", "does not hold", "does not hold"]
    guided = [*(verdict for verdict in beats[:2] for _ in STRATEGIES), "holds", "holds"]
    assert verdicts(finding) == [*guided, *(beats[2] for _ in STRATEGIES)]
    check = check_of(finding, "Beam search beats best-of-n at equal tokens and at equal operations.")
    assert check.here.startswith("at equal tokens +10.0")
    assert check.is_published
    assert sum(check.is_published for check in finding.checks) == len(STRATEGIES)


def test_a_gain_at_equal_tokens_alone_is_not_enough(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: 0.9 if name.endswith("at operations") else numbers(name))
    checks = [check for check in conclude(seeds, tiny_scale).checks if check.is_published]
    assert {check.verdict for check in checks} == {"does not hold"}


def test_one_strategy_that_loses_no_ground_fails_the_claim_of_all(tiny_scale: Scale) -> None:
    def with_good_subtrees(name: str) -> float:
        is_theirs = name.startswith(f"{FREE}/") and "/dvts/" in name and name.endswith("accuracy")
        return 0.9 if is_theirs else numbers(name)

    seeds = made_up(with_good_subtrees)
    assert check_of(conclude(seeds, tiny_scale), "exploits a reward model harder").verdict == "does not hold"


def test_tables_and_plots_cover_every_condition_and_budget(tiny_scale: Scale) -> None:
    finding = conclude(made_up(numbers), tiny_scale)
    assert len(finding.tables) == len(CONDITIONS) + 1
    assert [name for name, _ in finding.tables[0].rows] == [PICK, *STRATEGIES]
    assert len(finding.tables[0].columns) == 4 * len(tiny_scale.n)
    assert [plot.name for plot in finding.plots] == [f"search-{name}" for name in CONDITIONS]
    beam = next(series for series in finding.plots[0].series if series.name == "beam")
    assert beam.x == pytest.approx([35.0 * width + 0.02 for width in tiny_scale.n], abs=0.1)


def test_the_papers_scale_is_planned(tmp_path: Path) -> None:
    commands = planned(EXPERIMENT, tmp_path)
    # Three generators as usual, the base twice at temperature 1; a pool, and every strategy at every width.
    assert commands.count("search") == 5 * (1 + len(GUIDED) * 3)


@pytest.mark.slow
def test_on_a_tiny_lab(tiny_world: World) -> None:
    scale = tiny_world.scale
    one = replace(scale, sizes=replace(scale.sizes, test_prompts=2), n=(4,), generators={"mid": "lab:mid"})
    measured, finding = run_twice(EXPERIMENT, replace(tiny_world, scale=one))
    assert len(finding.checks) == 17
    for strategy in GUIDED:
        assert 0 <= measured[f"{USUAL}/{strategy}/4/accuracy"] <= measured[f"{USUAL}/{strategy}/4/coverage"]
    # Responses are equally long here, so a search as wide as picking draws as much; looking ahead more.
    assert measured[f"{USUAL}/beam/4/tokens"] == pytest.approx(measured[f"{USUAL}/{PICK}/4/tokens"], rel=0.2)
    assert measured[f"{USUAL}/lookahead/4/tokens"] > 1.2 * measured[f"{USUAL}/beam/4/tokens"]
    assert measured[f"{USUAL}/beam/4/at tokens"] == pytest.approx(
        measured[f"{USUAL}/{PICK}/4/accuracy"], abs=0.2
    )
