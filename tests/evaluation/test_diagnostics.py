import numpy as np
import pytest
from tests.evaluation.builders import joined

from stepcredit.evaluation.best_of_n import BestOfNSettings, outcomes
from stepcredit.evaluation.best_of_n_evaluation import evaluate_best_of_n
from stepcredit.evaluation.curves import common_curves, scorer_curve
from stepcredit.evaluation.diagnostics import (
    accuracy_by_difficulty,
    correlate,
    diagnose,
    minimum_is_last,
)
from stepcredit.evaluation.failures import worst_failures
from stepcredit.evaluation.remarks import describe_samples
from stepcredit.evaluation.samples import Joined
from stepcredit.stats import ProblemBootstrap

BOOTSTRAP = ProblemBootstrap(3, num_draws=200)


@pytest.fixture
def data() -> Joined:
    """Problem a: the scorer picks right against the majority; b: it picks wrong; c: all right."""
    return joined(
        [
            ("a", "4", True, {"prm": (2.0, 1.0)}),
            ("a", "5", False, {"prm": (0.0, -1.0)}),
            ("a", "5", False, {"prm": (-1.0, 0.0)}),
            ("b", "7", True, {"prm": (0.0, 0.5)}),
            ("b", "7", True, {"prm": (0.5, 0.0)}),
            ("b", "8", False, {"prm": (2.0, 2.0)}),
            ("c", "1", True, {"prm": (1.0, 1.0)}),
            ("c", "1", True, {"prm": (1.0, 0.0)}),
            ("c", "1", True, {"prm": (0.0, 1.0)}),
        ]
    )


def test_the_lowest_step_is_last_in_a_share_of_responses(data: Joined) -> None:
    # Last: a0 a1 b1 c1 and half of the tied b2, c0; not a2 b0 c2.
    share = minimum_is_last(data.samples, data.scorers[0], BOOTSTRAP)
    assert share.estimate == pytest.approx((4 + 0.5 + 0.5) / 9)


def test_agreement_with_the_majority_by_hand(data: Joined) -> None:
    diagnostics = diagnose(data.samples, data.scorers[0], "reward", {}, BOOTSTRAP)
    assert diagnostics.agreement is not None
    assert diagnostics.agreement.share.estimate == pytest.approx(1 / 3)  # only on c
    assert diagnostics.agreement.accuracy_agreeing == 1.0
    assert diagnostics.agreement.accuracy_differing == pytest.approx(1 / 2)  # right on a, wrong on b
    assert diagnostics.agreement.majority_differing == pytest.approx(1 / 2)  # wrong on a, right on b


def test_separation_over_all_and_within_problems(data: Joined) -> None:
    diagnostics = diagnose(data.samples, data.scorers[0], "reward", {}, BOOTSTRAP)
    right, wrong = [3.0, 0.5, 0.5, 2.0, 1.0, 1.0], [-1.0, -1.0, 4.0]
    assert diagnostics.outcome_auc.estimate == pytest.approx(np.mean([a > b for a in right for b in wrong]))
    assert diagnostics.within_problem_auc.estimate == pytest.approx(
        (1.0 + 0.0) / 2
    )  # problem c has no wrong one


def test_the_curve_follows_the_choice_and_its_score(data: Joined) -> None:
    points = scorer_curve(data.samples, data.scorers[0].scores["reward"], BOOTSTRAP)
    assert [point.n for point in points] == [1, 2, 3]
    assert [point.n for point in common_curves(data.samples, BOOTSTRAP)["majority"]] == [1, 2, 3]
    assert points[0].accuracy.estimate == pytest.approx((1 / 3 + 2 / 3 + 1) / 3)
    assert points[2].accuracy.estimate == pytest.approx(2 / 3)
    assert points[2].chosen_score == pytest.approx((3.0 + 4.0 + 2.0) / 3)
    scores = [point.chosen_score for point in points]
    assert scores == sorted(scores, key=lambda value: value or 0.0)


def test_difficulty_bins_cover_every_problem_once(data: Joined) -> None:
    measured = outcomes(data.samples, data.scorers, BestOfNSettings(ns=(1, 3)))
    accuracy = {method.label: measured.of(method)[-1] for method in measured.methods}
    bins = accuracy_by_difficulty(data.samples, accuracy)
    assert [(part.low, part.high, part.num_problems) for part in bins] == [
        (0.25, 0.5, 1),
        (0.5, 0.75, 1),
        (1.0, 1.0, 1),
    ]
    assert bins[0].accuracy["best-of-n/prm/reward"] == 1.0
    assert bins[1].accuracy["majority"] == 1.0


def test_correlations_within_problems_ignore_differences_between_them(data: Joined) -> None:
    scores = data.scorers[0].scores["reward"]
    shifted = scores + np.array([[0.0], [10.0], [-10.0]])
    assert correlate(scores, shifted, data.samples).within_problems == pytest.approx(1.0)
    assert correlate(scores, shifted, data.samples).pearson < 0.5
    assert np.isnan(correlate(scores, np.ones(scores.shape), data.samples).pearson)


def test_failures_show_the_wrong_choice_beside_the_best_right_one(data: Joined) -> None:
    (failure,) = worst_failures(data.samples, data.scorers[0], "reward")
    assert (failure.problem_id, failure.chosen.id, failure.best_right.id) == ("b", "r5", "r3")
    assert failure.majority_right is True
    assert failure.right_share == pytest.approx(2 / 3)
    spread = data.scorers[0].scores["reward"].std()
    assert failure.margin == pytest.approx((4.0 - 0.5) / spread)
    assert [(step.text, step.reward) for step in failure.chosen.steps] == [("a\n", 2.0), ("b", 2.0)]
    assert failure.chosen.copies == 3


def test_what_the_responses_are_like(data: Joined) -> None:
    description = describe_samples(data.samples)
    assert description["right_share"] == pytest.approx(6 / 9)
    assert description["solvable_share"] == 1.0
    assert description["distinct_responses"] == 1.0
    assert description["distinct_answers"] == pytest.approx(5 / 3)
    assert np.isnan(description["cut_off"])


def test_without_predictions_there_is_no_vote_but_the_rest_stands() -> None:
    rows = [("a", None, True, {"prm": (1.0, 1.0)}), ("a", None, False, {"prm": (0.0, 0.0)})]
    evaluation = evaluate_best_of_n(joined(rows), BestOfNSettings(ns=(1, 2)), draws=100)
    assert {row.method for row in evaluation.results} == {"pass", "best-of-n"}
    assert evaluation.diagnostics["prm"].agreement is None
    assert any("no response has a prediction" in note for note in evaluation.notes)


def test_without_scores_voting_is_reported_alone() -> None:
    data = joined([("a", "1", True, {"prm": (1.0, 1.0)}), ("b", "2", False, {"prm": (0.0, 0.0)})])
    evaluation = evaluate_best_of_n(Joined(data.samples, ()), BestOfNSettings(ns=(1,)), draws=100)
    assert {row.method for row in evaluation.results} == {"pass", "majority"}
