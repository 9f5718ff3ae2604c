from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, planned, run_twice, verdicts

from stepcredit_study.claims.instructions import EXPERIMENT, SHARES, variant
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.world import World


def per_share(gain: float, name: str) -> float:
    """Accuracy that rises by ``gain`` from no instructions to all."""
    share = re.search(r"(\d+)%", name)
    return 0.5 + gain * (int(share[1]) / 100 if share else 0.0)


def test_curves_that_rise_are_gains(tiny_scale: Scale) -> None:
    finding = EXPERIMENT.conclude(made_up(lambda name: per_share(0.2, name)), tiny_scale)
    assert verdicts(finding) == ["holds", "holds"]
    assert "+15.0" in check_of(finding, "CE gains").here


def test_curves_that_fall_are_none(tiny_scale: Scale) -> None:
    finding = EXPERIMENT.conclude(made_up(lambda name: per_share(-0.2, name)), tiny_scale)
    assert verdicts(finding) == ["does not hold", "does not hold"]


def test_each_generator_has_its_curve(tiny_scale: Scale) -> None:
    finding = EXPERIMENT.conclude(made_up(lambda name: per_share(0.2, name)), tiny_scale)
    for plot in finding.plots:
        assert [series.name for series in plot.series] == list(tiny_scale.generators)
        assert plot.series[0].x == (3.0, 6.0, 9.0, 12.0)


@pytest.mark.slow
def test_a_share_is_what_its_model_was_trained_on(tiny_world: World) -> None:
    numbers, _ = run_twice(EXPERIMENT, tiny_world)
    responses = [numbers[f"{variant('implicit-ce', share)}/responses"] for share in SHARES]
    assert responses == [12.0, 24.0, 36.0, 48.0]
    for policy in tiny_world.scale.generators:
        for share in SHARES:
            assert numbers[f"{policy}/{variant('implicit-ce', share)}/4"] <= numbers[f"{policy}/oracle/4"]


def test_at_the_papers_scale_each_share_is_trained_by_each_objective(tmp_path: Path) -> None:
    commands = planned(EXPERIMENT, tmp_path)
    assert (commands.count("train"), commands.count("select")) == (8, 6)
