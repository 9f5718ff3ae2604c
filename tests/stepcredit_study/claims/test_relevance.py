from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import made_up, planned, run_twice, verdicts

from stepcredit_study import reproduce
from stepcredit_study.claims.relevance import EXPERIMENT, with_kind
from stepcredit_study.frame.scale import OtherKind, Scale
from stepcredit_study.frame.world import World


def verdicts_for(scale: Scale, gain: float) -> list[str]:
    """Verdicts where other kinds add ``gain``."""
    return verdicts(EXPERIMENT.conclude(made_up(lambda name: 0.5 + gain * (" + " in name)), scale))


def test_other_kinds_that_add_nothing_do_not_help(tiny_scale: Scale) -> None:
    assert verdicts_for(tiny_scale, 0.0) == ["holds", "holds"]


def test_other_kinds_that_harm_do_not_help_either(tiny_scale: Scale) -> None:
    assert verdicts_for(tiny_scale, -0.1) == ["holds", "holds"]


def test_other_kinds_that_add_five_points_help(tiny_scale: Scale) -> None:
    assert verdicts_for(tiny_scale, 0.05) == ["does not hold", "does not hold"]


@pytest.mark.slow
def test_half_as_many_instructions_are_added(tiny_world: World) -> None:
    numbers, _ = run_twice(EXPERIMENT, tiny_world)
    for kind in tiny_world.scale.other_kinds:
        assert numbers[f"{with_kind('implicit-ce', kind)}/responses"] == 12 * 4 + 6 * 4


def test_at_the_papers_scale_the_kinds_are_its_own(tmp_path: Path, tiny_scale: Scale) -> None:
    commands = planned(EXPERIMENT, tmp_path)
    assert commands.count("train") == 6
    # General responses come graded, code is judged by its own grader.
    assert commands.count("sample") == commands.count("grade") == 4
    plan = reproduce.run(reproduce.Options(names=("relevance",), scale="paper", dry_run=True)).to_text()
    assert "stepcredit select ultrafeedback-graded.jsonl" in plan
    (judged,) = [
        line for line in plan.splitlines() if "grade/code-" in line and line.startswith("stepcredit grade")
    ]
    assert "--grader code" in judged
    general = replace(tiny_scale, other_kinds={"general": OtherKind(prompts="general.jsonl")})
    finding = EXPERIMENT.conclude(made_up(lambda _: 0.5), general)
    assert [name for name, _ in finding.tables[0].rows] == ["DPO", "DPO + general", "CE", "CE + general"]
