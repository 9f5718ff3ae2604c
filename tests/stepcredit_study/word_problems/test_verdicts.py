from __future__ import annotations

from typing import Any

import pytest

from stepcredit_study.word_problems.claims import CLAIMS, Interval
from stepcredit_study.word_problems.verdicts import factor_of, judge, judge_costs, verdict, verdict_cells

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
        ([BELOW, None], 1, "does not hold"),
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


def parts(collection: float, labelling: float, training: float) -> dict[str, float]:
    shared = {"collection": collection, "labelling": labelling, "training": training}
    return shared | {f"{name} (unshared)": value for name, value in shared.items()}


def test_a_methods_operations_are_counted_in_those_of_ce() -> None:
    known = {"operations": {"implicit-ce": parts(1, 0, 3), "math-shepherd": parts(1, 16, 3)}}
    assert factor_of(known, "math-shepherd") == pytest.approx(5.0)
    assert factor_of(known, "autopsv") is None


def test_costs_are_judged_once_all_of_their_parts_are_known() -> None:
    operations = {
        "implicit-ce": parts(1, 0, 3),
        "math-shepherd": parts(1, 16, 3),
        "autopsv": parts(1, 4, 3),
        "implicit-dpo": parts(1, 0, 5),
    }
    of_few = {"implicit-ce": parts(1, 0, 3), "implicit-dpo": parts(1, 0, 1)}
    results = {"operations": operations, "operations of a few": of_few}
    verdicts = {judged.claim.number: judged.verdict for judged in judge_costs(results)}
    assert verdicts == {"2.1": "does not hold", "2.2": "holds", "2.3": "holds"}
    assert {judged.verdict for judged in judge_costs({})} == {"not measured"}


def test_variants_are_judged_against_the_usual_model_with_their_margins() -> None:
    variants = {
        "a quarter of the problems": {"minus usual": BELOW, "minus two of eight responses": ABOVE},
        "with sums and products": {"minus usual": [0.0, -0.01, 0.01]},
        "scored without the reference": {"minus usual": [0.0, -0.01, 0.01], "minus reference": ABOVE},
        "trained without the reference": {"minus usual": [0.0, -0.03, 0.03]},
    }
    known = row(ABOVE, ABOVE) | {"variants": variants}
    verdicts = {judged.claim.number: judged.verdict for judged in judge(outcomes(**{"implicit-ce": known}))}
    expected = {"4.2": "holds", "5.4": "holds", "7.2": "holds", "10.5": "holds", "10.6": "undecided"}
    assert {number: verdicts[number] for number in expected} == expected
    assert verdicts["5.2"] == verdicts["10.8"] == verdicts["4.1"] == "not measured"


def test_a_claims_cell_names_verdict_and_numbers_of_each_test_set() -> None:
    good = outcomes(**{"implicit-ce": row([0.6, 0.55, 0.65], ABOVE), "implicit-dpo": row(ABOVE, ABOVE)})
    results = {
        "test sets": ["known", "new"],
        "outcomes": {"known/middle": good, "known/weak": good},
        "operations": {"implicit-ce": parts(1, 0, 3), "math-shepherd": parts(1, 76, 3)},
    }
    cells = verdict_cells(results)
    assert cells["1.8"].startswith(
        "known templates: **holds** (implicit-ce, minus reference 0.200 [0.100, 0.300], "
    )
    assert cells["2.1"] == "**holds** (times CE minus 10 10.00)"
    assert "1.1" not in cells
    assert verdict_cells({}) == {}
