import dataclasses
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest

from stepcredit.errors import DataError, UserError
from stepcredit.evaluation.best_of_n import BestOfNSettings, Method, outcomes, usable_sizes
from stepcredit.evaluation.choices import Choice, fixed_choice, vote_weights
from stepcredit.evaluation.development import choose
from stepcredit.evaluation.samples import Joined, join, select, split_by_problem
from stepcredit.evaluation.score_columns import score_columns
from stepcredit.types import ResponseScore, Rollout, StepScore

Row = tuple[str, str | None, bool | None, float]
"""Prompt id, prediction, correct, reward."""


def rollout(number: int, row: Row) -> Rollout:
    prompt, prediction, correct, _ = row
    return Rollout(
        id=f"r{number}",
        prompt_id=prompt,
        prompt="1+1=",
        response=f"text {number}",
        prediction=prediction,
        correct=correct,
    )


def score(number: int, row: Row) -> ResponseScore:
    reward = row[3]
    step = StepScore(index=0, text="text", start=0, end=4, reward=reward, value=reward)
    return ResponseScore(
        id=f"r{number}",
        prompt_id=row[0],
        reward=reward,
        steps=(step,),
        aggregates={"min": reward, "sum": 2 * reward},
        num_tokens=3,
        scorer="fake",
    )


def joined(rows: Sequence[Row], **named: Sequence[Row]) -> Joined:
    scores = {
        name: score_columns([score(i, row) for i, row in enumerate(scored)])
        for name, scored in (named or {"prm": rows}).items()
    }
    return join([rollout(i, row) for i, row in enumerate(rows)], scores)


ROWS: list[Row] = [
    ("a", "4", True, 0.5),
    ("a", "5", False, 2.0),
    ("a", "4", True, 0.25),
    ("a", None, False, 3.0),
    ("b", "7", False, -1.0),
    ("b", "7", False, 0.0),
    ("b", "8", True, 0.0),
    ("b", "9", False, -2.0),
]


def enumerate_subsets(kind: str, n: int) -> float:
    """The definition of every method, subset by subset."""
    per_problem = []
    for _, problem in itertools.groupby(ROWS, key=lambda row: row[0]):
        rows = list(problem)
        values = []
        for subset in itertools.combinations(rows, n):
            if kind == "pass":
                values.append(float(any(row[2] for row in subset)))
                continue
            if kind == "best-of-n":
                top = max(row[3] for row in subset)
                best = [row for row in subset if row[3] == top]
                values.append(sum(bool(row[2]) for row in best) / len(best))
                continue
            weights: dict[str, list[float]] = defaultdict(list)
            for _, prediction, _, reward in subset:
                if prediction is not None:
                    weights[prediction].append(reward)
            worth = {answer: vote_worth(kind, given) for answer, given in weights.items()}
            top = max(worth.values(), default=0.0)
            winners = [answer for answer, value in worth.items() if math.isclose(value, top)]
            right = {row[1] for row in rows if row[2]}
            values.append(sum(answer in right for answer in winners) / max(len(winners), 1))
        per_problem.append(sum(values) / len(values))
    return sum(per_problem) / len(per_problem)


def vote_worth(kind: str, weights: list[float]) -> float:
    match kind:
        case "majority":
            return len(weights)
        case "weighted-sigmoid":
            return sum(1 / (1 + math.exp(-weight)) for weight in weights)
        case "weighted-mean":
            return sum(weights) / len(weights)
        case "weighted-max":
            return max(weights)
        case _:
            return sum(weights)


@pytest.mark.parametrize(
    "kind",
    ["pass", "majority", "best-of-n"]
    + [f"weighted-{kind}" for kind in ("sigmoid", "sum", "mean", "max", "log-odds")],
)
def test_every_method_equals_its_definition(kind: str) -> None:
    data = joined(ROWS)
    measured = outcomes(data.samples, data.scorers, BestOfNSettings(ns=(1, 2, 3, 4)))
    scorer = None if kind in ("pass", "majority") else "prm"
    values = measured.of(Method(kind, scorer, scorer and "reward")).mean(axis=1)
    for n, value in zip(measured.ns, values, strict=True):
        assert value == pytest.approx(enumerate_subsets(kind, n), abs=1e-12)


def test_nearly_equal_aggregates_have_figures_of_their_own() -> None:
    """Both problems' right response is the best by the reward and the worst by ``min``."""
    rows: list[Row] = [(problem, str(i), i == 0, 1.0) for problem in "ab" for i in range(2)]
    columns = score_columns([score(i, row) for i, row in enumerate(rows)])
    columns.scores["reward"][::2] += 1e-13
    columns.scores["min"][::2] -= 1e-13
    data = join([rollout(i, row) for i, row in enumerate(rows)], {"prm": columns})
    measured = outcomes(data.samples, data.scorers, BestOfNSettings(ns=(2,)))
    assert measured.of(Method("best-of-n", "prm", "reward")).tolist() == [[1.0, 1.0]]
    assert measured.of(Method("best-of-n", "prm", "min")).tolist() == [[0.0, 0.0]]


def test_first_n_takes_one_subset_in_file_order() -> None:
    data = joined(ROWS)
    measured = outcomes(data.samples, data.scorers, BestOfNSettings(ns=(1, 2, 3), first=True))
    expected = {
        Method("pass"): [[1, 0], [1, 0], [1, 1]],
        Method("majority"): [[1, 0], [0.5, 0], [1, 0]],
        Method("best-of-n", "prm", "min"): [[1, 0], [0, 0], [0, 0.5]],
        Method("weighted-max", "prm", "min"): [[1, 0], [0, 0], [0, 0.5]],
        # Problem b, n = 3: answer 7 has -1 + 0, answer 8 has 0.
        Method("weighted-sum", "prm", "min"): [[1, 0], [0, 0], [0, 1]],
    }
    for method, values in expected.items():
        np.testing.assert_allclose(measured.of(method), np.array(values, dtype=np.float64))


def test_scores_in_the_unit_interval_are_probabilities_to_the_log_odds_vote() -> None:
    scores, valid = np.array([[0.5, 0.9]]), np.ones((1, 2), dtype=bool)
    weights = vote_weights("log-odds", scores, valid, fixed_choice())
    np.testing.assert_allclose(weights, [[0.0, math.log(9)]])
    np.testing.assert_array_equal(vote_weights("log-odds", 2 * scores, valid, fixed_choice()), 2 * scores)
    calibrated = Choice(aggregate="reward", log_odds={"reward": (2.0, -1.0)}, chosen_on="dev")
    np.testing.assert_allclose(vote_weights("log-odds", scores, valid, calibrated), [[0.0, 0.8]])


def test_the_aggregate_is_the_best_one_on_the_development_problems() -> None:
    rows = [("a", "1", True, 1.0), ("a", "2", False, 0.0), ("b", "1", True, 3.0), ("b", "2", False, 2.0)]
    data = joined(rows)
    upside_down = [score(i, (p, q, c, -r)) for i, (p, q, c, r) in enumerate(rows)]
    columns = score_columns(upside_down)
    columns.scores["min"][:] *= -1
    data = join([rollout(i, row) for i, row in enumerate(rows)], {"prm": columns})
    choice = choose(data.samples, data.scorers, BestOfNSettings(ns=(1, 2, 64)), "dev.jsonl")["prm"]
    assert (choice.aggregate, choice.chosen_on) == ("min", "dev.jsonl")


def test_the_split_depends_on_nothing_but_the_problem() -> None:
    rows: list[Row] = [(f"p{i}", "1", True, 0.0) for i in range(400)]
    held_out = split_by_problem(joined(rows).samples, 0.25)
    assert 70 < held_out.sum() < 130
    reverse = split_by_problem(joined(rows[::-1]).samples, 0.25)
    np.testing.assert_array_equal(reverse[::-1], held_out)
    part = select(joined(rows), held_out)
    assert part.samples.num_problems == held_out.sum()
    assert part.scorers[0].scores["min"].shape[0] == held_out.sum()


def test_sizes_stop_at_the_smallest_number_of_responses() -> None:
    assert usable_sizes([64, 1, 4, 4], np.array([5, 9])) == ((1, 4), (64,))
    with pytest.raises(UserError, match="smallest number of responses to a problem is 5"):
        usable_sizes([8], np.array([5, 9]))
    with pytest.raises(UserError, match="must be at least 1"):
        usable_sizes([0, 1], np.array([5]))


def test_what_does_not_match_is_refused_or_counted() -> None:
    rollouts = [rollout(i, row) for i, row in enumerate(ROWS)]
    scores = [score(i, row) for i, row in enumerate(ROWS)]
    with pytest.raises(DataError, match="lacks the scores of 1 rollout of rollouts, first 'r7'"):
        join(rollouts, {"prm": score_columns(scores[:-1])})
    partial = join(rollouts, {"prm": score_columns(scores[:-1])}, skip_invalid=True)
    assert partial.excluded == {"rollouts without a score": 1}
    assert list(partial.samples.num_responses) == [4, 3]
    surplus = join(rollouts[:-1], {"prm": score_columns(scores)})
    assert surplus.excluded == {"scores of prm for rollouts that are not there": 1}
    with pytest.raises(DataError, match="none of its ids"):
        join(rollouts[:4], {"prm": score_columns(scores[4:])})
    moved = [score(i, ("c", *row[1:])) for i, row in enumerate(ROWS)]
    with pytest.raises(DataError, match="rollout 'r0' is of prompt 'c', not 'a'"):
        join(rollouts, {"prm": score_columns(moved)})


def test_ungraded_rows_are_counted_and_a_file_of_them_refused() -> None:
    rows: list[Row] = [(p, q, None if i == 0 else c, r) for i, (p, q, c, r) in enumerate(ROWS)]
    assert joined(rows).excluded == {"rollouts that are not graded": 1}
    with pytest.raises(DataError, match="no response is graded"):
        joined([(p, q, None, r) for p, q, _, r in ROWS])


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match=r"prm, score 2: .*finite"):
        score_columns([score(0, ROWS[0]), score(1, ("a", "5", False, float("nan")))], "prm")


def test_an_aggregate_that_some_response_lacks_is_left_out() -> None:
    scores = [score(i, row) for i, row in enumerate(ROWS)]
    columns = score_columns(scores)
    columns.scores["min"][3] = np.nan
    data = join([rollout(i, row) for i, row in enumerate(ROWS)], {"prm": columns})
    assert set(data.scorers[0].scores) == {"reward", "sum"}
    assert data.scorers[0].incomplete == {"min": 1}


def test_predictions_count_as_equal_up_to_surrounding_space() -> None:
    rows: list[Row] = [("a", " 4", True, 0.0), ("a", "4 ", True, 0.0), ("a", "5", False, 0.0)]
    groups = joined(rows).samples.answers[0]
    assert Counter(groups.tolist()) == {0: 2, 1: 1}


def test_problems_that_share_a_prompt_id_do_not_vote_together() -> None:
    first, second = (rollout(number, row) for number, row in enumerate(ROWS[:2]))
    with pytest.raises(DataError, match="'r1' has another prompt than the rows before it"):
        join([first, dataclasses.replace(second, prompt="2+2=")], {})
