"""What is said of data that cannot tell: no right answer, equal scores, one response, one problem."""

import math
from collections.abc import Sequence

from tests.evaluation.builders import joined

from stepcredit.evaluation.best_of_n import BestOfNSettings
from stepcredit.evaluation.best_of_n_evaluation import BestOfNEvaluation, evaluate_best_of_n
from stepcredit.evaluation.development import Development
from stepcredit.evaluation.remarks import interval_remarks

Row = tuple[str, str | None, bool, dict[str, Sequence[float]]]


def evaluated(rows: list[Row], n: int, development: Development | None = None) -> BestOfNEvaluation:
    return evaluate_best_of_n(joined(rows), BestOfNSettings(ns=(1, n)), draws=200, development=development)


def grid(problems: int, responses: int, right: Sequence[bool], answer: str | None = "1") -> list[Row]:
    """Responses that are right by turns, with scores that differ."""
    return [
        (f"p{problem}", answer, right[index % len(right)], {"prm": (float(index), 1.0)})
        for problem in range(problems)
        for index in range(responses)
    ]


def said(evaluation: BestOfNEvaluation, words: str) -> bool:
    return any(words in note for note in evaluation.notes)


def test_one_problem_has_no_interval_and_no_p_value() -> None:
    evaluation = evaluated(grid(1, 2, [True, False]), 2)
    assert all(math.isnan(row.low) and math.isnan(row.high) for row in evaluation.results)
    assert all(math.isnan(row.low) and math.isnan(row.p_value + row.p_holm) for row in evaluation.comparisons)
    assert {row.accuracy for row in evaluation.results} <= {0.0, 0.5, 1.0}
    diagnosed = evaluation.diagnostics["prm"]
    assert math.isnan(diagnosed.outcome_auc.low)
    assert math.isnan(diagnosed.calibration_error.low)
    assert all(math.isnan(point.accuracy.low) for point in diagnosed.curve)
    assert evaluation.to_json()["results"][0]["low"] is None
    assert said(evaluation, "with one problem there are neither intervals nor tests")


def test_few_problems_are_a_warning_and_enough_are_none() -> None:
    assert said(evaluated(grid(19, 2, [True, False]), 2), "19 problems are few")
    assert not said(evaluated(grid(20, 2, [True, False]), 2), "are few")


def test_an_interval_without_width_is_explained() -> None:
    assert list(interval_remarks({"": 50}, [(0.2, 0.4), (1.0, 1.0)])) == [
        "an interval of zero width means that a figure is the same in all N problems, not that it is exact: "
        "up to 3 in N of other problems may differ (rule of three)"
    ]
    assert not list(interval_remarks({"": 50}, [(0.2, 0.4), (math.nan, math.nan)]))
    assert next(interval_remarks({"gsm8k": 3}, [])).startswith("gsm8k: 3 problems are few")


def test_equal_scores_pick_at_random_and_it_is_said() -> None:
    rows: list[Row] = [
        (f"p{problem}", str(index), index == 0, {"prm": (0.0, 0.0)})
        for problem in range(3)
        for index in range(3)
    ]
    evaluation = evaluated(rows, 3)
    assert {row.accuracy for row in evaluation.results if row.method == "best-of-n"} == {1 / 3}
    assert said(evaluation, "prm: reward, min, last are the same for all responses to a problem")


def test_one_response_leaves_nothing_to_choose() -> None:
    evaluation = evaluated(grid(4, 1, [True]), 1)
    assert not evaluation.comparisons
    assert said(evaluation, "every problem has one response")
    assert not said(evaluation, "the same for all responses")


def test_without_a_right_response_nothing_is_told_apart() -> None:
    evaluation = evaluated(grid(4, 2, [False]), 2)
    assert {row.accuracy for row in evaluation.results} == {0.0}
    assert math.isnan(evaluation.diagnostics["prm"].outcome_auc.estimate)
    assert evaluation.diagnostics["prm"].agreement is not None
    assert not evaluation.failures["prm"]
    assert said(evaluation, "no response is right")
    assert said(evaluated(grid(4, 2, [True]), 2), "every response is right")


def test_choices_on_problems_that_cannot_tell_are_named() -> None:
    held_out = joined(grid(3, 2, [False]))
    evaluation = evaluated(grid(4, 2, [True, False]), 2, Development(joined=held_out, name="dev"))
    assert evaluation.choices["prm"].temperature == 1.0
    assert said(evaluation, "no development problem has both right and wrong responses")


def test_a_blank_prediction_is_none() -> None:
    for blank in ("", "  "):
        evaluation = evaluated(grid(4, 2, [True, False], answer=blank), 2)
        assert {row.method for row in evaluation.results} == {"pass", "best-of-n"}
        assert said(evaluation, "no response has a prediction")
        assert evaluation.responses["without_prediction"] == 1.0
    some = grid(2, 2, [True, False])
    some += [("p9", " ", False, {"prm": (0.0, 0.0)}), ("p9", "1", True, {"prm": (0.0, 0.0)})]
    evaluation = evaluated(some, 2)
    assert said(evaluation, "1 response has no prediction and abstains from votes")
