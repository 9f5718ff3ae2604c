from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, planned, run_twice

from stepcredit_study.analyses.operations import PARTS, UNSHARED
from stepcredit_study.claims.cost import (
    AUTOPSV,
    CE,
    DOUBLED,
    DPO,
    EXPERIMENT,
    METHODS,
    PAPER,
    SHEPHERD,
    amounts,
    conclude,
    total,
)
from stepcredit_study.frame.scale import Scale, read_scale
from stepcredit_study.frame.seeds import Seeds
from stepcredit_study.frame.world import World

FACTORS = {CE: (1.0, 1.0, 1.0), DPO: (0.3, 0.8, 1.8), SHEPHERD: (38.8, 38.6, 38.8), AUTOPSV: (4.3, 4.2, 4.3)}
SHARED = 0.2
"""Part of Monte-Carlo labelling that is left where prefixes are shared."""


def seeds(accuracy: dict[str, float], *, doubled: bool = True) -> Seeds:
    """Operations in the paper's proportions; ``METHOD/AMOUNT`` to accuracy, 0.5 where it is not said."""
    measurements = []
    for seed in range(5):
        numbers: dict[str, float] = {}
        for method in METHODS:
            for place, amount in enumerate(("2", "4", "8")):
                factor = FACTORS.get(method, (1.0, 1.0, 1.0))[place]
                numbers |= _parts(method, amount, int(amount) * factor)
                numbers[f"{method}/{amount}/accuracy"] = accuracy.get(f"{method}/{amount}", 0.5)
        if doubled:
            numbers |= _parts(SHEPHERD, DOUBLED, 16 * 38.8)
            numbers[f"{SHEPHERD}/{DOUBLED}/accuracy"] = accuracy.get(f"{SHEPHERD}/{DOUBLED}", 0.5)
        measurements.append({name: value * (1 + 0.001 * seed) for name, value in numbers.items()})
    return Seeds(measurements)


def _parts(method: str, amount: str, operations: float) -> dict[str, float]:
    """A tenth of what CE takes is sampling; all that Math-Shepherd takes beyond CE is labelling."""
    of_ce = 16.0 if amount == DOUBLED else float(amount)
    labelling = operations - of_ce if method == SHEPHERD else 0.0
    parts = {"collection": 0.1 * of_ce, "labelling": labelling}
    parts["training"] = operations - math.fsum(parts.values())
    numbers = {f"{method}/{amount}/{part}{UNSHARED}": parts[part] for part in PARTS}
    numbers |= {f"{method}/{amount}/{part}": parts[part] for part in PARTS}
    numbers[f"{method}/{amount}/labelling"] = SHARED * labelling
    return numbers


@pytest.fixture(scope="module")
def lab() -> Scale:
    return read_scale("lab")


def test_the_papers_costs_give_its_verdicts(lab: Scale) -> None:
    finding = conclude(seeds({f"{CE}/8": 0.8, f"{SHEPHERD}/{DOUBLED}": 0.6}), lab)
    assert [check.verdict for check in finding.checks] == ["holds"] * 4
    rows = dict(finding.tables[0].rows)
    for method, published in PAPER.items():
        ours = [cell.mean for cell in rows[method][::3]]  # type: ignore[union-attr]
        assert ours == pytest.approx([float(cells) for cells in published])
    # What is left of 38.8 when a fifth of the labelling, all but 1 of it, is done.
    shared = rows[SHEPHERD][7]
    assert shared.mean == pytest.approx(1 + SHARED * 37.8)  # type: ignore[union-attr]


def test_a_step_model_that_catches_up_fails_the_last_claim(lab: Scale) -> None:
    finding = conclude(seeds({f"{CE}/8": 0.6, f"{SHEPHERD}/{DOUBLED}": 0.7}), lab)
    assert check_of(finding, "draw level").verdict == "does not hold"


def test_where_it_draws_level_is_told_with_its_cost(lab: Scale) -> None:
    accuracy = {f"{SHEPHERD}/{amount}": value for amount, value in zip("248", (0.4, 0.5, 0.6), strict=True)}
    accuracy |= {f"{SHEPHERD}/{DOUBLED}": 0.7, f"{CE}/2": 0.3, f"{CE}/4": 0.6, f"{CE}/8": 0.8}
    rows = dict(conclude(seeds(accuracy), lab).tables[3].rows)
    assert rows["CE on 2 responses"][1] == "at most 0.25"
    assert rows["CE on 4 responses"][1] == "1"
    # Math-Shepherd takes 38.8 for all data, CE a half for half of them.
    assert rows["CE on 4 responses"][2] == "77.6"
    assert rows["CE on 8 responses"][1] == "not with 2 times the data"


def test_without_more_data_there_is_no_claim_about_them(lab: Scale) -> None:
    finding = conclude(seeds({}, doubled=False), lab)
    assert len(finding.checks) == 3


def test_a_cheap_labelling_fails_the_claim_that_it_is_dear(lab: Scale) -> None:
    def cheaper(name: str) -> float:
        return 0.02 if "math-shepherd" in name and "labelling" in name else 1.0

    usual = seeds({}).measurements
    cheap = [{name: value * cheaper(name) for name, value in numbers.items()} for numbers in usual]
    finding = conclude(Seeds(cheap), lab)
    assert check_of(finding, "ten times").verdict == "does not hold"
    # A fiftieth of 37.8 for labels, a tenth for sampling, and training the other nine of CE's tenths.
    assert "Labelling takes 8 times" in check_of(finding, "ten times").why
    assert "training makes up 90%" in check_of(finding, "ten times").why
    assert check_of(finding, "less than Math-Shepherd").verdict == "does not hold"


def test_the_factor_at_the_papers_scale_comes_from_the_plan_of_a_run(lab: Scale) -> None:
    why = check_of(conclude(seeds({}), lab), "ten times").why
    # 2 N operations per token read or written and 6 N per token trained on, with the recipe's mean lengths.
    assert "gives 5.3 times. Labelling takes 32.4 times as many operations as drawing" in why
    assert "training makes up 86% of CE's operations" in why


def test_amounts_are_no_more_than_there_are(lab: Scale, tiny_scale: Scale) -> None:
    assert amounts(lab) == ("2", "4", "8")
    assert amounts(tiny_scale) == ("2", "4")


def test_the_papers_scale_is_planned_without_more_instructions(tmp_path: Path) -> None:
    commands = planned(EXPERIMENT, tmp_path)
    assert commands.count("label math-shepherd") == 3
    assert commands.count("train") == 3 * len(METHODS)


@pytest.mark.slow
def test_on_a_tiny_lab(tiny_world: World) -> None:
    measured, _ = run_twice(EXPERIMENT, tiny_world)
    for method in METHODS:
        for amount in ("2", "4"):
            assert 0 <= measured[f"{method}/{amount}/accuracy"] <= 1
            assert total(measured, method, amount, UNSHARED) >= total(measured, method, amount)
    assert measured[f"{CE}/2/labelling"] == 0 < measured[f"{AUTOPSV}/2/labelling"]
    assert measured[f"{SHEPHERD}/4/labelling"] < measured[f"{SHEPHERD}/4/labelling{UNSHARED}"]
    assert measured[f"{SHEPHERD}/{DOUBLED}/collection"] > 1.5 * measured[f"{SHEPHERD}/4/collection"]
