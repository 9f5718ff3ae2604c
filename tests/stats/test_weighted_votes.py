import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.stats import NO_ANSWER, ProblemBootstrap, VoteSubsets, max_vote


def enumerated(
    answers: list[int],
    weights: list[float],
    outcomes: list[float],
    n: int,
    combine: Callable[[list[float]], float],
) -> float:
    """Every subset written out; an answer is worth the mean outcome of all its responses."""
    subsets = itertools.combinations(range(len(answers)), n)
    return mean([voted(answers, weights, outcomes, subset, combine) for subset in subsets])


def voted(
    answers: list[int],
    weights: list[float],
    outcomes: list[float],
    subset: Sequence[int],
    combine: Callable[[list[float]], float],
) -> float:
    """The vote of one subset."""
    members = defaultdict(list)
    for answer, outcome in zip(answers, outcomes, strict=True):
        members[answer].append(outcome)
    votes = defaultdict(list)
    for i in subset:
        if answers[i] != NO_ANSWER:
            votes[answers[i]].append(weights[i])
    if not votes:
        return 0.0
    worth = {answer: combine(given) for answer, given in votes.items()}
    best = max(worth.values())
    winners = [answer for answer, value in worth.items() if math.isclose(value, best, abs_tol=1e-12)]
    return sum(mean(members[winner]) for winner in winners) / len(winners)


one_problem = st.lists(
    st.tuples(
        st.sampled_from([NO_ANSWER, 0, 1, 2]), st.sampled_from([-1.0, 0.1, 0.1, 0.2, 0.3]), st.booleans()
    ),
    min_size=1,
    max_size=7,
)


def padded(
    problems: list[list[tuple[int, float, bool]]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    counts = np.array([len(problem) for problem in problems])
    answers = np.zeros((len(problems), counts.max()), dtype=int)
    weights, outcomes = np.full(answers.shape, 9.0), np.ones(answers.shape)
    for row, problem in enumerate(problems):
        size = len(problem)
        answers[row, :size] = [a for a, _, _ in problem]
        weights[row, :size] = [w for _, w, _ in problem]
        outcomes[row, :size] = [c for _, _, c in problem]
    return answers, weights, outcomes, counts


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@given(st.lists(one_problem, min_size=1, max_size=3))
def test_weighted_votes_equal_the_mean_over_every_subset(
    problems: list[list[tuple[int, float, bool]]],
) -> None:
    answers, weights, outcomes, counts = padded(problems)
    for n in range(1, counts.min() + 1):
        sums, means = VoteSubsets(answers, outcomes, counts, n).vote(weights, ("sum", "mean"))
        maxima = max_vote(answers, weights, outcomes, counts, [n])[0]
        assert sums.resampling_error == means.resampling_error == 0.0
        for row, problem in enumerate(problems):
            arguments = (
                [a for a, _, _ in problem],
                [w for _, w, _ in problem],
                [float(c) for _, _, c in problem],
                n,
            )
            assert sums.expected[row] == pytest.approx(enumerated(*arguments, sum), abs=1e-12)
            assert means.expected[row] == pytest.approx(enumerated(*arguments, mean), abs=1e-12)
            assert maxima[row] == pytest.approx(enumerated(*arguments, max), abs=1e-12)


def test_random_subsets_agree_with_many_more_of_them_within_the_stated_error() -> None:
    generator = np.random.default_rng(3)
    answers = generator.integers(-1, 4, (40, 52))
    outcomes = (answers == 0).astype(float)
    weights = generator.random((40, 52)) + 0.3 * outcomes
    counts = np.full(40, 52)
    truth = (
        VoteSubsets(answers, outcomes, counts, 5, num_draws=20_000, seed=99).vote(weights)[0].expected.mean()
    )
    deviations = []
    for seed in range(20):
        estimate = VoteSubsets(answers, outcomes, counts, 5, num_draws=100, seed=seed).vote(weights)[0]
        assert estimate.resampling_error > 0.0
        deviations.append((estimate.expected.mean() - truth) / estimate.resampling_error)
    assert 0.5 < np.std(deviations) < 1.6  # z-values: their spread is 1 up to chance
    assert max(np.abs(deviations)) < 4.0


def drawn_problem(seed: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    answers = generator.integers(0, 3, (1, size))
    return answers, generator.random((1, size)), (answers == 0).astype(float)


@pytest.mark.parametrize("n", [5, 9])  # subsets, and what subsets leave out
def test_disjoint_subsets_err_less_than_as_many_independent_ones(n: int) -> None:
    answers, weights, outcomes = drawn_problem(1, 15)
    problem = answers[0].tolist(), weights[0].tolist(), outcomes[0].tolist()
    truth = enumerated(*problem, n, sum)
    subsets = [list(subset) for subset in itertools.combinations(range(15), n)]
    generator = np.random.default_rng(0)
    independent, disjoint, stated = [], [], []
    won = np.array([voted(*problem, subset, sum) for subset in subsets])
    for seed in range(300):
        independent.append(won[generator.integers(len(subsets), size=60)].mean() - truth)
        estimate = VoteSubsets(answers, outcomes, np.array([15]), n, num_draws=60, seed=seed).vote(weights)[0]
        disjoint.append(estimate.expected[0] - truth)
        stated.append(estimate.resampling_error)
    assert abs(np.mean(disjoint)) < 4 * np.std(disjoint) / math.sqrt(300)  # unbiased
    assert np.var(disjoint) < 0.8 * np.var(independent)
    assert math.sqrt(np.mean(np.square(stated))) == pytest.approx(np.std(disjoint), rel=0.15)


def test_the_bootstrap_over_problems_has_the_error_of_random_subsets_in_it() -> None:
    """Problems that are alike in truth: all spread is from the subsets, and the interval shows it."""
    answers, weights, outcomes = (np.repeat(part, 60, axis=0) for part in drawn_problem(1, 15))
    counts = np.full(60, 15)
    estimate = VoteSubsets(answers, outcomes, counts, 5, num_draws=10).vote(weights)[0]
    interval = ProblemBootstrap(60).interval(estimate.expected)
    assert interval.high - interval.low == pytest.approx(3.92 * estimate.resampling_error, rel=0.25)


def test_equal_weights_give_the_plain_vote_whatever_their_size() -> None:
    # 0.1 + 0.1 + 0.1 is not 0.3 in floating point; the three answers must still tie.
    answers = np.array([[0, 0, 0, 1, 1, 1, 2, 2, 2]])
    outcomes = (answers == 0).astype(float)
    whole = VoteSubsets(answers, outcomes, np.array([9]), 9)
    weights = np.array([[0.1, 0.1, 0.1, 0.3, 0.0, 0.0, 0.15, 0.15, 0.0]])
    np.testing.assert_allclose(whole.vote(weights)[0].expected, 1 / 3)


@pytest.mark.parametrize("weights", [[4e-18, 9e-27, 3e-27], [0.5**40, 0.5**50, 0.5**60]])
def test_small_weights_do_not_tie(weights: list[float]) -> None:
    answers, outcomes = np.array([[0, 1, 2]]), np.array([[1.0, 0.0, 0.0]])
    (by_sum, by_mean) = VoteSubsets(answers, outcomes, np.array([3]), 3).vote(
        np.array([weights]), ("sum", "mean")
    )
    assert by_sum.expected.tolist() == by_mean.expected.tolist() == [1.0]


def test_many_tied_scores_stay_exact() -> None:
    # One score for all: each answer present is as likely, here two answers of 30 and 2 responses.
    answers = np.array([[0] * 30 + [1] * 2])
    outcomes = (answers == 0).astype(float)
    n = 4
    only_first = math.comb(30, n) / math.comb(32, n)
    only_second = 0.0  # four responses cannot all be of the pair
    expected = only_first + (1 - only_first - only_second) / 2
    shares = max_vote(answers, np.zeros((1, 32)), outcomes, np.array([32]), [n])
    assert shares[0, 0] == pytest.approx(expected, abs=1e-12)
