from __future__ import annotations

import math
from pathlib import Path

import pytest

from stepcredit.experiments.critics import (
    HEAD,
    IMPLICIT,
    MODELS,
    conclude,
    measure,
    prepare,
)
from stepcredit.reports.finding import Check
from stepcredit.reproduction.over_optimisation import AGGREGATES, OPTIMISED, TRAINED_REMEDIES
from stepcredit.reproduction.over_optimisation_findings import ON_TRIAL
from stepcredit.reproduction.remedies import AS_TRAINED, REMEDIES
from stepcredit.reproduction.scale import Scale
from stepcredit.reproduction.seeds import Measurement, Seeds
from stepcredit.reproduction.store import Plan, Store
from stepcredit.reproduction.world import World

LAST, LENGTH, GENERATORS, FALLS, CAUSE = range(5)


def measurement(scale: Scale, shift: float) -> dict[str, float]:
    """A world in which the critics are right and every remedy helps; ``shift`` tells seeds apart."""
    numbers = {"minimum-is-last/chance": 0.2, "test/pass@1": 0.4, "test/oracle": 0.9, "test/distinct": 9.0}
    numbers |= {f"length/{name}": 0.3 + shift for name in (*MODELS, "a right answer")}
    numbers |= {f"minimum-is-last/{name}": 0.6 + shift for name in MODELS if name != HEAD}
    for policy in scale.generators:
        numbers[f"generator/{policy}/pass@1"] = 0.4
        for name in (IMPLICIT, HEAD):
            seen = policy == scale.base or name == HEAD
            numbers[f"generator/{policy}/{name}/accuracy"] = 0.6
            numbers[f"generator/{policy}/{name}/gain"] = (0.5 if seen else 0.2) + shift
            numbers[f"generator/{policy}/{name}/auc"] = 0.8
    for name in OPTIMISED:
        for by in AGGREGATES:
            numbers[f"cause/{name}/{by}/rare among wrong picks"] = 0.8 + shift
            numbers[f"cause/{name}/{by}/rare among wrong"] = 0.1
            numbers[f"cause/{name}/{by}/ratio of rare tokens"] = 0.8
            for remedy in (*REMEDIES, *TRAINED_REMEDIES):
                slope = -0.05 if remedy == AS_TRAINED else 0.05
                for index, n in enumerate(scale.n):
                    for where in ("test", "usual"):
                        numbers[f"{where}/{name}/{by}/{remedy}/{n}"] = 0.6 + (slope + shift) * index
        for remedy in (*REMEDIES, *TRAINED_REMEDIES):
            numbers |= {f"steps/{name}/{remedy}/{kind} support": 0.9 for kind in ("on", "off")}
    return numbers


def checks(scale: Scale, changes: dict[str, float] | None = None) -> list[Check]:
    seeds: list[Measurement] = []
    for number in range(3):
        shift = 0.001 * number
        replaced = {name: value + shift for name, value in (changes or {}).items()}
        seeds.append(measurement(scale, shift) | replaced)
    return list(conclude(Seeds(seeds), scale).checks)


def test_the_critics_are_right_where_they_are(tiny_scale: Scale) -> None:
    assert [check.verdict for check in checks(tiny_scale)] == ["holds"] * (5 + len(ON_TRIAL))


def test_a_minimum_spread_over_all_steps_and_no_correlation_with_length_are_told(tiny_scale: Scale) -> None:
    found = checks(tiny_scale, {"minimum-is-last/implicit-ce": 0.1, "length/implicit-ce": 0.01})
    assert (found[LAST].verdict, found[LENGTH].verdict) == ("does not hold", "does not hold")


def test_shorter_is_a_correlation_with_length_too(tiny_scale: Scale) -> None:
    assert checks(tiny_scale, {"length/implicit-ce": -0.4})[LENGTH].verdict == "holds"


def test_an_implicit_model_that_keeps_its_gain_elsewhere_is_told(tiny_scale: Scale) -> None:
    kept = {f"generator/{policy}/implicit-ce/gain": 0.7 for policy in tiny_scale.generators}
    lost = {f"generator/{name}/outcome-head/gain": 0.1 for name in tiny_scale.generators}
    found = checks(tiny_scale, kept | lost | {f"generator/{tiny_scale.base}/outcome-head/gain": 0.5})
    assert found[GENERATORS].verdict == "does not hold"


def test_no_fall_no_cause_and_a_remedy_that_fails_are_told(tiny_scale: Scale) -> None:
    most, remedy = tiny_scale.largest_n, ON_TRIAL[-1]
    changes = {
        f"test/implicit-ce/min/{AS_TRAINED}/{most}": 0.9,
        "cause/implicit-dpo/sum/rare among wrong picks": 0.0,
        f"test/implicit-dpo/min/{remedy}/{most}": 0.3,
    }
    found = checks(tiny_scale, changes)
    assert (found[FALLS].verdict, found[CAUSE].verdict) == ("does not hold", "does not hold")
    assert "support" in found[CAUSE].why
    assert [check.verdict for check in found[5:]] == ["holds"] * (len(ON_TRIAL) - 1) + ["does not hold"]


def test_a_plan_reads_no_file(tiny_scale: Scale, tmp_path: Path) -> None:
    plan = Plan()
    prepare(World(tiny_scale, Store(tmp_path / "store", plan), 0))
    trained = [options for command, options in plan.steps if command == "train"]
    assert len(trained) == len(MODELS) + len(TRAINED_REMEDIES)


@pytest.mark.slow
def test_it_runs_on_a_lab_of_a_few_problems(tiny_world: World) -> None:
    found = measure(tiny_world, prepare(tiny_world))
    assert all(math.isfinite(value) for value in found.values())
    assert found["test/pass@1"] <= found["test/oracle"]
    assert 0 <= found[f"steps/{IMPLICIT}/{AS_TRAINED}/on support"] <= 1
    for name in OPTIMISED:
        for n in tiny_world.scale.n:
            assert 0 <= found[f"test/{name}/min/{AS_TRAINED}/{n}"] <= found["test/oracle"] + 1e-9
    conclude(Seeds([found, found]), tiny_world.scale)
