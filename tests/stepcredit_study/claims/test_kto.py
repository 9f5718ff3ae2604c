from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, planned

from stepcredit_study.claims.kto import EXPERIMENT, MODELS, RAISED
from stepcredit_study.claims.main import KTO_WEAKEST
from stepcredit_study.claims.voting import WEAKEST_GAINS_MOST
from stepcredit_study.frame.scale import Scale
from stepcredit_study.pages.finding import Finding

USUAL: Mapping[str, float] = {
    "implicit-dpo": 0.8,
    "implicit-nca": 0.8,
    "implicit-ce": 0.8,
    "implicit-kto": 0.82,
    RAISED: 0.7,
    "pass@1": 0.4,
}


def concluded(scale: Scale, changes: Mapping[str, float] | None = None) -> Finding:
    """What follows from accuracies, where votes add nothing unless said otherwise."""
    numbers = {f"{RAISED}/z is 0": 0.1, "implicit-kto/z is 0": 0.9, **USUAL, **(changes or {})}

    def rule(name: str) -> float:
        return numbers[name] if name in numbers else numbers[name.rpartition("/")[0]]

    return EXPERIMENT.conclude(made_up(rule), scale)


def test_kto_is_weakest_where_it_is_behind_all_others(tiny_scale: Scale) -> None:
    finding = concluded(tiny_scale, {f"{RAISED}/vote": 0.75})
    assert [check.verdict for check in finding.checks] == ["holds"] * 3
    ahead = concluded(tiny_scale, {RAISED: 0.9})
    assert check_of(ahead, KTO_WEAKEST).verdict == "does not hold"


def test_voting_that_takes_most_from_the_weakest_is_said_to(tiny_scale: Scale) -> None:
    finding = concluded(tiny_scale, {f"{RAISED}/vote": 0.6})
    assert check_of(finding, WEAKEST_GAINS_MOST).verdict == "does not hold"
    assert RAISED in check_of(finding, WEAKEST_GAINS_MOST).why


def test_without_a_z_above_0_the_claims_are_not_measured(tiny_scale: Scale) -> None:
    finding = concluded(tiny_scale, {f"{RAISED}/z is 0": 0.6})
    assert [check.verdict for check in finding.checks] == ["does not hold", "not measured", "not measured"]


@pytest.mark.parametrize("name", [KTO_WEAKEST, WEAKEST_GAINS_MOST])
def test_repeated_claims_are_not_counted_among_the_published(tiny_scale: Scale, name: str) -> None:
    assert not check_of(concluded(tiny_scale), name).is_published


def test_kto_is_trained_twice_and_the_others_once(tmp_path: Path) -> None:
    assert planned(EXPERIMENT, tmp_path).count("train") == len(MODELS) == 5
