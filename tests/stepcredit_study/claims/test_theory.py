from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from stepcredit_study.analyses.proposition_findings import BETAS, CHECKED_MODELS, NUM_SAMPLES
from stepcredit_study.claims.main import OBJECTIVES
from stepcredit_study.claims.theory import EXPERIMENT, POSITIONS, VALUE_SOURCES, conclude, measure, prepare
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import Check, Estimate

EXACT, SAMPLED, BOUNDS, FOLLOWS, ORDERS, CALIBRATED = range(6)


def measurement(shift: float = 0.0) -> dict[str, float]:
    """Numbers of a world in which everything holds; ``shift`` tells seeds apart."""
    numbers: dict[str, float] = {}
    for name in CHECKED_MODELS:
        numbers |= {f"exact/{name}/error": 1e-13, f"exact/{name}/continuations": 5e4}
        for size in NUM_SAMPLES:
            numbers[f"sampled/{name}/{size}"] = 0.1 + shift
            numbers[f"sampled/{name}/relative/{size}"] = (1 + shift) / math.sqrt(size)
        numbers |= {f"sampled/{name}/{what}": 0.1 + shift for what in ("mean", "effective", "largest")}
        numbers |= {f"bounds/{name}/{beta:g}": 1 / (1 + beta) + shift for beta in BETAS}
        numbers[f"bounds/{name}/outside"] = 0.0
    for name in VALUE_SOURCES:
        better = 0.2 * (name in OBJECTIVES)
        numbers[f"values/{name}/rank-correlation"] = 0.4 + better + shift
        numbers[f"values/{name}/calibration-error"] = 0.01 + shift
        numbers |= {f"values/{name}/order/{position}": 0.5 for position in POSITIONS}
        numbers |= {f"values/{name}/calibration-error/{position}": 0.02 for position in POSITIONS}
        numbers |= {f"values/{name}/distance/{position}": 0.1 for position in POSITIONS}
    return numbers


def checks(scale: Scale, changes: Mapping[str, float] | None = None) -> list[Check]:
    """Of seeds whose numbers differ a little, with some replaced."""
    seeds: list[Measurement] = [
        measurement(shift) | {name: value + shift for name, value in (changes or {}).items()}
        for shift in (0.0, 0.001, 0.002)
    ]
    return list(conclude(Seeds(seeds), scale).checks)


def test_everything_holds_where_it_does(tiny_scale: Scale) -> None:
    assert [check.verdict for check in checks(tiny_scale)] == ["holds"] * 6


def test_an_error_beyond_rounding_refutes_the_first_proposition(tiny_scale: Scale) -> None:
    assert checks(tiny_scale, {"exact/implicit-dpo/error": 1e-4})[EXACT].verdict == "does not hold"


def test_an_error_that_does_not_fall_with_samples_is_told(tiny_scale: Scale) -> None:
    flat = {f"sampled/implicit-ce/relative/{size}": 0.5 for size in NUM_SAMPLES}
    check = checks(tiny_scale, flat)[SAMPLED]
    assert check.verdict == "does not hold"
    assert "effective" in check.why


def test_a_value_outside_its_bounds_refutes_the_second_proposition(tiny_scale: Scale) -> None:
    assert checks(tiny_scale, {"bounds/implicit-ce/outside": 0.2})[BOUNDS].verdict == "does not hold"


def test_values_that_do_not_follow_the_exact_ones_are_told(tiny_scale: Scale) -> None:
    conclusions = checks(tiny_scale, {"values/implicit-kto/rank-correlation": 0.1})
    assert conclusions[FOLLOWS].verdict == "does not hold"
    assert conclusions[ORDERS].verdict == "holds"


def test_heads_that_order_better_and_wild_probabilities_are_told(tiny_scale: Scale) -> None:
    changes = {
        "values/head-on-soft-labels/rank-correlation": 0.9,
        "values/implicit-ce/calibration-error": 0.3,
    }
    conclusions = checks(tiny_scale, changes)
    assert (conclusions[ORDERS].verdict, conclusions[CALIBRATED].verdict) == (
        "does not hold",
        "does not hold",
    )


def test_labels_on_training_responses_stand_beside_heads_on_test_responses(tiny_scale: Scale) -> None:
    changes = {
        "values/soft-labels/rank-correlation": 0.8,
        "values/hard-labels/rank-correlation": 0.7,
        "values/head-on-soft-labels/rank-correlation": 0.2,
        "values/head-on-hard-labels/rank-correlation": 0.1,
    }
    labels, _, heads = checks(tiny_scale, changes)[ORDERS].why.partition(" on training responses; ")
    assert "soft-labels 0.80" in labels
    assert "hard-labels 0.70" in labels
    assert "head-on-soft-labels 0.20" in heads
    assert "head-on-hard-labels 0.10" in heads


def test_every_source_has_its_calibration_at_every_position(tiny_scale: Scale) -> None:
    tables = {table.title: table for table in conclude(Seeds([measurement()]), tiny_scale).tables}
    table = tables["Learned values as probabilities"]
    assert table.columns == (
        "calibration error",
        "after step 1",
        "after step 2",
        "after step 3",
        "after step 4",
        "with the answer",
    )
    assert [name for name, _ in table.rows] == list(VALUE_SOURCES)
    for _, cells in table.rows:
        assert [cell.mean for cell in cells if isinstance(cell, Estimate)] == [0.01, *[0.02] * 5]


def test_what_too_few_responses_cannot_tell_is_left_blank(tiny_scale: Scale) -> None:
    few = {name: value for name, value in measurement().items() if not name.startswith("values/hard-labels/")}
    finding = conclude(Seeds([few, few]), tiny_scale)
    assert all(dict(table.rows)["hard-labels"] == (None,) * 6 for table in finding.tables[2:4])
    assert "hard-labels" not in [series.name for series in finding.plots[-1].series]


@pytest.mark.slow
def test_it_runs_on_a_lab_of_a_few_problems(tiny_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepcredit_study.claims.theory.DEPTH", 2)
    monkeypatch.setattr("stepcredit_study.claims.theory.NUM_TREES", 1)
    monkeypatch.setattr("stepcredit_study.claims.theory.NUM_PREFIXES", 4)
    for room in ("claims.theory", "analyses.proposition_findings"):
        monkeypatch.setattr(f"stepcredit_study.{room}.NUM_SAMPLES", (4, 16))
    numbers = measure(tiny_world, prepare(tiny_world))
    assert all(math.isfinite(value) for value in numbers.values())
    for name in CHECKED_MODELS:
        assert numbers[f"exact/{name}/error"] < 1e-10
        assert numbers[f"bounds/{name}/outside"] < 1e-10
        assert numbers[f"sampled/{name}/4"] > 0
    for name in ("soft-labels", "hard-labels"):
        assert 0 <= numbers[f"values/{name}/distance/answer"] < 1e-9
        assert 0 <= numbers[f"values/{name}/calibration-error/answer"] < 1e-9
    assert EXPERIMENT.lab_only
    conclude(Seeds([numbers, numbers]), tiny_world.scale)
