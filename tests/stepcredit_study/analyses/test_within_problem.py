from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stepcredit.stats import ProblemBootstrap
from stepcredit_study.analyses.within_problem import (
    Pairs,
    auc_difference,
    centred,
    count_pairs,
    pooled_auc,
    without_length,
)


def drawn(seed: int, num_problems: int = 5, num_responses: int = 40) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    problems = generator.integers(num_problems, size=num_responses)
    return {
        "problems": problems,
        "scores": generator.integers(0, 6, size=num_responses) + 3.0 * problems,
        "lengths": generator.integers(5, 50, size=num_responses).astype(float),
        "right": generator.random(num_responses) < 0.4,
    }


def naive_residuals(scores: Any, lengths: Any, problems: Any) -> list[float]:
    """One least-squares line by its normal equation, over deviations from problem means."""
    rows = range(len(scores))

    def deviation(values: Any, row: int) -> float:
        same = [float(values[other]) for other in rows if problems[other] == problems[row]]
        return float(values[row]) - sum(same) / len(same)

    pairs = [(deviation(lengths, row), deviation(scores, row)) for row in rows]
    spread = sum(length * length for length, _ in pairs)
    slope = sum(length * score for length, score in pairs) / spread if spread else 0.0
    return [score - slope * length for length, score in pairs]


def naive_pairs(scores: Any, right: Any, problems: Any, problem: int) -> tuple[float, int]:
    ordered, total = 0.0, 0
    for one in range(len(scores)):
        for other in range(len(scores)):
            if problems[one] == problems[other] == problem and right[one] and not right[other]:
                total += 1
                ordered += 1.0 if scores[one] > scores[other] else 0.5 * (scores[one] == scores[other])
    return ordered, total


@pytest.mark.parametrize("seed", range(4))
def test_length_is_removed_as_by_the_naive_computation(seed: int) -> None:
    data = drawn(seed)
    naive = naive_residuals(data["scores"], data["lengths"], data["problems"])
    assert without_length(data["scores"], data["lengths"], data["problems"]) == pytest.approx(
        naive, abs=1e-12
    )


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_those_of_the_naive_count(seed: int) -> None:
    data = drawn(seed)
    pairs = count_pairs(data["scores"], data["right"], data["problems"], 5)
    naive = [naive_pairs(data["scores"], data["right"], data["problems"], problem) for problem in range(5)]
    assert [*zip(pairs.ordered, pairs.total, strict=True)] == naive
    expected = sum(ordered for ordered, _ in naive) / sum(total for _, total in naive)
    assert pooled_auc([pairs], ProblemBootstrap(5, num_draws=50)).estimate == pytest.approx(expected)


def test_a_score_that_is_only_length_says_nothing_when_length_is_removed() -> None:
    data = drawn(7)
    left = without_length(-2.5 * data["lengths"], data["lengths"], data["problems"])
    assert left == pytest.approx(np.zeros(40), abs=1e-12)


def test_length_that_does_not_vary_removes_nothing() -> None:
    data = drawn(8)
    left = without_length(data["scores"], np.full(40, 12.0), data["problems"])
    assert left == pytest.approx(centred(data["scores"], data["problems"]))


def test_shifting_a_problems_scores_changes_nothing() -> None:
    data = drawn(9)
    shift = np.array([0.0, 100.0, -7.0, 3.0, 1e4])[data["problems"]]
    plain = count_pairs(
        without_length(data["scores"], data["lengths"], data["problems"]), data["right"], data["problems"], 5
    )
    shifted = without_length(data["scores"] + shift, data["lengths"], data["problems"])
    assert np.array_equal(count_pairs(shifted, data["right"], data["problems"], 5).ordered, plain.ordered)


def test_differences_are_paired_by_problem_and_seeds_are_averaged() -> None:
    total = np.array([4.0, 2.0, 0.0])
    good, poor = Pairs(np.array([4.0, 1.0, 0.0]), total), Pairs(np.array([2.0, 1.0, 0.0]), total)
    bootstrap = ProblemBootstrap(3, num_draws=2000)
    assert pooled_auc([good, poor], bootstrap).estimate == pytest.approx((3 + 1) / 6)
    assert auc_difference([good], [poor], bootstrap).estimate == pytest.approx(2 / 6)
    same = auc_difference([good], [good], bootstrap)
    assert (same.low, same.estimate, same.high) == (0.0, 0.0, 0.0)


def test_without_a_pair_there_is_no_auc() -> None:
    pairs = count_pairs(np.array([1.0, 2.0]), np.array([True, True]), np.array([0, 1]), 2)
    assert np.isnan(pooled_auc([pairs], ProblemBootstrap(2, num_draws=10)).estimate)
