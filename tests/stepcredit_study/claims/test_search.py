"""Guided search beside picking at equal cost: measured in a tiny lab, and concluded from made-up numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, planned, run_twice, verdicts

from stepcredit_study.claims.search import EXPERIMENT, GUIDED, PICK, conclude
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.world import World


@pytest.mark.slow
def test_every_strategy_is_measured_beside_picking_at_its_cost(tiny_world: World) -> None:
    sizes = replace(tiny_world.scale.sizes, test_prompts=2)
    world = replace(tiny_world, scale=replace(tiny_world.scale, sizes=sizes))
    numbers, finding = run_twice(EXPERIMENT, world)
    assert len(finding.checks) == 17
    for strategy in GUIDED:
        assert numbers[f"usual/{strategy}/4/tokens"] > numbers[f"usual/{strategy}/2/tokens"]
    assert numbers["usual/lookahead/4/tokens"] > numbers["usual/beam/4/tokens"]
    # A search of one width costs what that many whole responses cost, if responses are equally long.
    assert numbers["usual/beam/4/tokens"] == pytest.approx(numbers[f"usual/{PICK}/4/tokens"], rel=0.2)
