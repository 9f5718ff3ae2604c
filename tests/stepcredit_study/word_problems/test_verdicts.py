from __future__ import annotations

from typing import Any

import pytest

from stepcredit_study.word_problems.verdicts import CLAIMS, Interval, factor_of, judge, verdict

ABOVE, BELOW, ACROSS = [0.2, 0.1, 0.3], [-0.2, -0.3, -0.1], [0.0, -0.1, 0.1]


@pytest.mark.parametrize(
    ("intervals", "sign", "expected"),
    [
        ([ABOVE, ABOVE], 1, "holds"),
        ([ABOVE, ACROSS], 1, "undecided"),
        ([ACROSS, BELOW], 1, "does not hold"),
        ([BELOW], -1, "holds"),
        ([ABOVE], -1, "does not hold"),
        ([ABOVE, None], 1, "not measured"),
        ([[0.1, 0.0, 0.2]], 1, "undecided"),
    ],
)
def test_a_claim_holds_if_all_of_every_interval_is_on_its_side(
    intervals: list[Interval], sign: int, expected: str
) -> None:
    assert verdict(intervals, sign) == expected


def outcomes(**methods: Any) -> dict[str, Any]:
    return {"majority": {"4": [0.5, 0.4, 0.6], "16": [0.5, 0.4, 0.6]}, "methods": methods}


def row(auc: list[float], difference: list[float]) -> dict[str, Any]:
    return {
        "auc": {"length regressed out": auc, "minus shortness": difference, "minus reference": difference},
        "weighted vote": {"4": {"minus plain": BELOW}, "16": {"minus plain": difference}},
        "slips": {"auc": auc, "minus reference": None},
    }


def test_claims_are_judged_at_the_largest_n_and_aucs_against_one_half() -> None:
    good = row([0.6, 0.55, 0.65], ABOVE)
    verdicts = {
        judged.claim.number: judged.verdict
        for judged in judge(outcomes(**{"implicit-ce": good, "implicit-dpo": good}))
    }
    assert verdicts["P1"] == verdicts["P2"] == "holds"
    assert verdicts["P3"] == verdicts["1.1"] == "not measured"
    chance = row([0.5, 0.45, 0.55], ABOVE)
    (first, *_) = judge(outcomes(**{"implicit-ce": good, "implicit-dpo": chance}))
    assert first.verdict == "undecided"
    assert first.here["implicit-dpo, length regressed out minus 0.5"] == pytest.approx([0.0, -0.05, 0.05])


def test_without_any_run_nothing_is_claimed() -> None:
    assert {judged.verdict for judged in judge(outcomes())} == {"not measured"}
    assert [claim.number for claim in CLAIMS[:3]] == ["P1", "P2", "P3"]


def test_a_methods_operations_are_counted_in_those_of_ce() -> None:
    parts = {"collection": 1.0, "labelling": 0.0, "training": 3.0}
    known = {"operations": {"implicit-ce": parts, "math-shepherd": {**parts, "labelling": 16.0}}}
    assert factor_of(known, "math-shepherd") == pytest.approx(5.0)
    assert factor_of(known, "autopsv") is None
