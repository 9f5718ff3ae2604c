import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.stats import best_of_first_n, best_of_n, pass_at_n, rank_weights


def enumerated_best_of_n(scores: list[float], outcomes: list[float], n: int) -> float:
    """Every subset written out; tied best responses are averaged."""
    picked = []
    for subset in itertools.combinations(range(len(scores)), n):
        top = max(scores[i] for i in subset)
        best = [outcomes[i] for i in subset if scores[i] == top]
        picked.append(sum(best) / len(best))
    return sum(picked) / len(picked)


one_problem = st.lists(
    st.tuples(st.sampled_from([-1.5, 0.0, 0.0, 0.25, 3.0]), st.booleans()), min_size=1, max_size=7
)


@given(st.lists(one_problem, min_size=1, max_size=4))
def test_best_of_n_equals_the_mean_over_every_subset(problems: list[list[tuple[float, bool]]]) -> None:
    counts = np.array([len(problem) for problem in problems])
    scores = np.full((len(problems), counts.max()), 99.0)
    outcomes = np.ones(scores.shape)
    for row, problem in enumerate(problems):
        scores[row, : len(problem)] = [score for score, _ in problem]
        outcomes[row, : len(problem)] = [right for _, right in problem]
    ns = range(1, counts.min() + 1)
    rows = best_of_n(scores, outcomes, counts, ns)
    for n, row in zip(ns, rows, strict=True):
        for value, problem in zip(row, problems, strict=True):
            expected = enumerated_best_of_n([s for s, _ in problem], [float(r) for _, r in problem], n)
            assert value == pytest.approx(expected, abs=1e-12)


def test_a_hand_worked_case() -> None:
    # Scores 3 (wrong), 2 (right), 1 (right). Pairs: {3,2} wrong, {3,1} wrong, {2,1} right.
    scores, outcomes, counts = np.array([[3.0, 2.0, 1.0]]), np.array([[0, 1, 1]]), np.array([3])
    np.testing.assert_allclose(best_of_n(scores, outcomes, counts, [1, 2, 3]), [[2 / 3], [1 / 3], [0.0]])


def test_ties_are_split_evenly() -> None:
    scores, outcomes = np.zeros((1, 4)), np.array([[1, 0, 0, 0]])
    np.testing.assert_allclose(best_of_n(scores, outcomes, np.array([4]), [1, 2, 4]), 0.25)
    np.testing.assert_allclose(best_of_first_n(scores, outcomes, [1, 2, 4]), [[1.0], [0.5], [0.25]])


@pytest.mark.parametrize(("num_responses", "num_correct"), [(1, 0), (1, 1), (5, 0), (5, 2), (6, 5), (6, 6)])
def test_pass_at_n_counts_the_subsets_that_hold_a_right_response(
    num_responses: int, num_correct: int
) -> None:
    for n in range(1, num_responses + 1):
        subsets = list(itertools.combinations(range(num_responses), n))
        share = sum(min(subset) < num_correct for subset in subsets) / len(subsets)
        shares = pass_at_n(np.array([num_correct]), np.array([num_responses]), n)
        assert shares[0] == pytest.approx(share, abs=1e-12)


def test_all_right_or_all_wrong_stays_so_whatever_the_score() -> None:
    scores, counts = np.random.default_rng(0).normal(size=(2, 64)), np.array([64, 64])
    outcomes = np.repeat([[1.0], [0.0]], 64, axis=1)
    for row in best_of_n(scores, outcomes, counts, [1, 4, 16, 64]):
        np.testing.assert_allclose(row, [1.0, 0.0], atol=1e-12)


def test_rank_weights_stay_exact_for_many_responses() -> None:
    weights = rank_weights(4096, 1024)
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert weights[1] == pytest.approx(1024 / 4096 * 3072 / 4095, rel=1e-13)


def test_n_beyond_the_responses_is_refused() -> None:
    with pytest.raises(ValueError, match=r"n must be in 1\.\.3"):
        rank_weights(3, 4)
