import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.stats import NO_ANSWER, majority_vote


def enumerated_vote(answers: list[int], outcomes: list[float], n: int) -> float:
    """Every subset written out; tied answers share, an answer is worth its members in the subset."""
    values = []
    for subset in itertools.combinations(range(len(answers)), n):
        votes = Counter(answers[i] for i in subset if answers[i] != NO_ANSWER)
        if not votes:
            values.append(0.0)
            continue
        winners = [answer for answer, count in votes.items() if count == max(votes.values())]
        worth = []
        for winner in winners:
            members = [outcomes[i] for i in subset if answers[i] == winner]
            worth.append(sum(members) / len(members))
        values.append(sum(worth) / len(worth))
    return sum(values) / len(values)


one_problem = st.lists(
    st.tuples(st.sampled_from([NO_ANSWER, 0, 0, 1, 2, 3]), st.booleans()), min_size=1, max_size=8
)


@given(st.lists(one_problem, min_size=1, max_size=4))
def test_the_vote_equals_the_mean_over_every_subset(problems: list[list[tuple[int, bool]]]) -> None:
    counts = np.array([len(problem) for problem in problems])
    answers = np.full((len(problems), counts.max()), 0)
    outcomes = np.ones(answers.shape)
    for row, problem in enumerate(problems):
        answers[row, : len(problem)] = [answer for answer, _ in problem]
        outcomes[row, : len(problem)] = [right for _, right in problem]
    ns = range(1, counts.min() + 1)
    shares = majority_vote(answers, outcomes, counts, ns)
    for n, row in zip(ns, shares, strict=True):
        for value, problem in zip(row, problems, strict=True):
            expected = enumerated_vote([a for a, _ in problem], [float(r) for _, r in problem], n)
            assert value == pytest.approx(expected, abs=1e-12)


def test_a_hand_worked_case() -> None:
    # Answers a a b (a right). Pairs: {a,a} right, {a,b} twice: a tie, half right. So (1 + .5 + .5) / 3.
    answers, outcomes = np.array([[0, 0, 1]]), np.array([[1, 1, 0]])
    shares = majority_vote(answers, outcomes, np.array([3]), [1, 2, 3])
    np.testing.assert_allclose(shares, [[2 / 3], [2 / 3], [1.0]])


def test_responses_without_an_answer_abstain() -> None:
    answers, outcomes = np.array([[NO_ANSWER, NO_ANSWER, NO_ANSWER, 0]]), np.array([[0, 0, 0, 1]])
    shares = majority_vote(answers, outcomes, np.array([4]), [1, 2, 3, 4])
    np.testing.assert_allclose(shares, [[0.25], [0.5], [0.75], [1.0]])


def test_a_vote_in_which_all_abstain_is_wrong() -> None:
    answers = np.full((1, 3), NO_ANSWER)
    assert not majority_vote(answers, np.zeros((1, 3)), np.array([3]), [1, 2, 3]).any()


def test_the_vote_agrees_with_simulation_at_the_usual_size() -> None:
    generator = np.random.default_rng(1)
    answers = generator.choice(
        [NO_ANSWER, 0, 1, 2, 3, 4, 5], p=[0.1, 0.3, 0.28, 0.2, 0.05, 0.05, 0.02], size=(3, 64)
    )
    outcomes = (answers == 0).astype(float)
    exact = majority_vote(answers, outcomes, np.full(3, 64), [16])[0]
    for row in range(3):
        draws = [generator.permutation(64)[:16] for _ in range(4000)]
        simulated = [enumerated_vote(list(answers[row][d]), list(outcomes[row][d]), 16) for d in draws]
        error = float(np.std(simulated)) / np.sqrt(len(draws))
        assert abs(exact[row] - np.mean(simulated)) < 4 * error


def test_large_samples_neither_overflow_nor_lose_mass() -> None:
    answers = np.zeros((1, 3000), dtype=int)
    answers[0, 1000:] = 1
    outcomes = (answers == 0).astype(float)
    one = majority_vote(answers, outcomes, np.array([3000]), [1, 2])
    np.testing.assert_allclose(one, 1 / 3, rtol=1e-9)  # of two votes, a tie is half: still 1/3
