from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from stepcredit.pipelines.driver import Plan, Store
from stepcredit_study.analyses.over_optimisation import AGGREGATES, OPTIMISED, TRAINED_REMEDIES
from stepcredit_study.analyses.over_optimisation_findings import ON_TRIAL, TRUNCATED
from stepcredit_study.analyses.remedies import AS_TRAINED, FILTER, REMEDIES
from stepcredit_study.claims.critics import (
    HEAD,
    IMPLICIT,
    MODELS,
    conclude,
    correlation_within,
    measure,
    prepare,
)
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import Check

LAST, LENGTH, GENERATORS, FALLS, ENRICHED, CAUSE = range(6)
ON_TRIAL_HERE = (*ON_TRIAL, *TRAINED_REMEDIES, TRUNCATED)


def measurement(scale: Scale, shift: float) -> dict[str, float]:
    """A world in which the critics are right and every remedy helps; ``shift`` tells seeds apart."""
    numbers = {"minimum-is-last/chance": 0.2, "test/pass@1": 0.4, "test/oracle": 0.9, "test/distinct": 9.0}
    numbers |= {"length/problems": 0.5, "negatives/rare": 0.9}
    numbers |= {f"length/{name}": 0.3 + shift for name in MODELS}
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
                numbers[f"strength/{name}/{by}/{remedy}"] = 0.1
                for index, n in enumerate(scale.n):
                    for where in ("test", "usual"):
                        slope = -0.05 if (remedy, where) == (AS_TRAINED, "test") else 0.05
                        numbers[f"{where}/{name}/{by}/{remedy}/{n}"] = 0.6 + (slope + shift) * index
        for remedy in (*REMEDIES, *TRAINED_REMEDIES):
            numbers |= {f"steps/{name}/{remedy}/{kind} support": 0.9 for kind in ("on", "off")}
    return numbers


def checks(scale: Scale, changes: dict[str, float] | None = None) -> list[Check]:
    seeds: list[Measurement] = [
        measurement(scale, shift) | {name: value + shift for name, value in (changes or {}).items()}
        for shift in (0.0, 0.001, 0.002)
    ]
    return list(conclude(Seeds(seeds), scale).checks)


def test_the_critics_are_right_where_they_are(tiny_scale: Scale) -> None:
    assert [check.verdict for check in checks(tiny_scale)] == ["holds"] * (6 + len(ON_TRIAL_HERE))


def test_a_minimum_spread_over_all_steps_and_no_correlation_with_length_are_told(tiny_scale: Scale) -> None:
    conclusions = checks(tiny_scale, {"minimum-is-last/implicit-ce": 0.1, "length/implicit-ce": 0.01})
    assert (conclusions[LAST].verdict, conclusions[LENGTH].verdict) == ("does not hold", "does not hold")
    alike = checks(tiny_scale, {"length/problems": 0.1})
    assert alike[LENGTH].verdict == "not measured"


def test_reward_follows_length_within_problems_only() -> None:
    """Long problems with low rewards do not make a correlation; one problem's responses do."""
    rewards, lengths = np.array([0.9, 0.8, 0.1, 0.2, 0.3]), np.array([4, 4, 9, 9, 12])
    assert correlation_within(rewards, lengths, ["a", "a", "b", "b", "c"]) == []
    assert correlation_within(rewards, lengths, ["a", "a", "b", "b", "b"]) == pytest.approx([np.sqrt(3) / 2])


def test_shorter_is_a_correlation_with_length_too(tiny_scale: Scale) -> None:
    assert checks(tiny_scale, {"length/implicit-ce": -0.4})[LENGTH].verdict == "holds"


def test_an_implicit_model_that_keeps_its_gain_elsewhere_is_told(tiny_scale: Scale) -> None:
    kept = {f"generator/{policy}/implicit-ce/gain": 0.7 for policy in tiny_scale.generators}
    lost = {f"generator/{name}/outcome-head/gain": 0.1 for name in tiny_scale.generators}
    conclusions = checks(tiny_scale, kept | lost | {f"generator/{tiny_scale.base}/outcome-head/gain": 0.5})
    assert conclusions[GENERATORS].verdict == "does not hold"


def test_a_head_without_any_gain_has_no_part_of_it_to_lose(tiny_scale: Scale) -> None:
    nothing = {f"generator/{tiny_scale.base}/outcome-head/gain": -0.1}
    assert checks(tiny_scale, nothing)[GENERATORS].verdict == "not measured"


def test_no_fall_no_cause_and_a_remedy_that_fails_are_told(tiny_scale: Scale) -> None:
    most, remedy = tiny_scale.largest_n, ON_TRIAL[-1]
    changes = {
        f"test/implicit-ce/min/{AS_TRAINED}/{most}": 0.9,
        "cause/implicit-dpo/sum/rare among wrong picks": 0.0,
        f"test/implicit-dpo/min/{remedy}/{most}": 0.3,
        f"test/implicit-dpo/sum/{FILTER}/{most}": 0.3,
    }
    conclusions = checks(tiny_scale, changes)
    assert [conclusions[number].verdict for number in (FALLS, ENRICHED, CAUSE)] == ["does not hold"] * 3
    assert "support" in conclusions[ENRICHED].why
    verdicts = {
        check.claim.split(". ")[0]: check.verdict
        for check in conclusions
        if check.claim.startswith("Remedy: ")
    }
    assert len(verdicts) == len(ON_TRIAL_HERE)
    # With none, CE's best-of-n rises as much, so no remedy is better than none there.
    assert set(verdicts.values()) == {"does not hold"}


def test_a_remedy_that_rises_but_picks_worse_than_none_fails(tiny_scale: Scale) -> None:
    few, most = tiny_scale.n[-2:]
    remedy = ON_TRIAL[0]
    worse = {f"test/implicit-ce/min/{remedy}/{few}": 0.1, f"test/implicit-ce/min/{remedy}/{most}": 0.2}
    (check,) = [check for check in checks(tiny_scale, worse) if check.claim.startswith(f"Remedy: {remedy}.")]
    assert check.verdict == "does not hold"


def test_a_plan_reads_no_file(tiny_scale: Scale, tmp_path: Path) -> None:
    plan = Plan()
    prepare(World(tiny_scale, Store(tmp_path / "store", plan), 0))
    trained = [options for command, options in plan.steps if command == "train"]
    assert len(trained) == len(MODELS) + len(TRAINED_REMEDIES)


@pytest.mark.slow
def test_it_runs_on_a_lab_of_a_few_problems(tiny_world: World) -> None:
    numbers = measure(tiny_world, prepare(tiny_world))
    assert all(math.isfinite(value) for value in numbers.values())
    assert numbers["test/pass@1"] <= numbers["test/oracle"]
    assert 0 <= numbers[f"steps/{IMPLICIT}/{AS_TRAINED}/on support"] <= 1
    for name in OPTIMISED:
        for n in tiny_world.scale.n:
            assert 0 <= numbers[f"test/{name}/min/{AS_TRAINED}/{n}"] <= numbers["test/oracle"] + 1e-9
    conclude(Seeds([numbers, numbers]), tiny_world.scale)
