from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, planned, run_twice, verdicts

from stepcredit_study.claims.responses import EXPERIMENT, by_instructions, by_responses
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.world import World


def accuracy(name: str, *, of_share: float, of_count: float) -> float:
    """Accuracy that rises with the share of the instructions and with the responses to each."""
    match = re.search(r"(\d+)% x (\d)", name)
    return 0.4 + of_share * int(match[1]) / 100 + of_count * int(match[2]) / 8 if match else 0.4


def test_where_responses_matter_more_than_instructions(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: accuracy(name, of_share=0.1, of_count=0.3))
    assert verdicts(EXPERIMENT.conclude(seeds, tiny_scale)) == ["holds"] * 4


def test_where_instructions_matter_more_than_responses(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: accuracy(name, of_share=0.3, of_count=0.1))
    finding = EXPERIMENT.conclude(seeds, tiny_scale)
    assert verdicts(finding) == ["holds", "holds", "does not hold", "does not hold"]
    # A quarter of the instructions loses .225, a quarter of the responses .075.
    assert "-15.0" in check_of(finding, "CE gains more").here


def test_where_neither_matters(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: accuracy(name, of_share=0.0, of_count=-0.1))
    assert verdicts(EXPERIMENT.conclude(seeds, tiny_scale)) == ["does not hold"] * 4


@pytest.mark.slow
def test_the_rivals_are_trained_on_equally_many_responses(tiny_world: World) -> None:
    numbers, _ = run_twice(EXPERIMENT, tiny_world)
    # The tiny lab draws 4 responses to 12 instructions.
    assert numbers[f"{by_instructions('implicit-ce', 0.5)}/responses"] == 24
    assert numbers[f"{by_responses('implicit-ce', 2)}/responses"] == 24
    assert numbers[f"{by_responses('implicit-ce', 1)}/responses"] == 12


def test_at_the_papers_scale_shared_models_are_trained_once(tmp_path: Path) -> None:
    # CE on 1, 2, 4 and 8 responses, DPO on 2, 4 and 8, and both on a quarter and on half of the instructions.
    assert planned(EXPERIMENT, tmp_path).count("train") == 11
