from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stepcredit.stats import ProblemBootstrap
from stepcredit_study.analyses.grouped_auc import Grouped, grouped_auc


def drawn(seed: int, num_groups: int = 3) -> tuple[Grouped, list[Any]]:
    generator = np.random.default_rng(seed)
    positive = generator.random(90) < 0.3
    items = Grouped(positive, generator.integers(8, size=90), generator.integers(num_groups, size=90))
    return items, [generator.integers(0, 9, size=90) + 2.0 * positive for _ in range(2)]


def naive_auc(items: Grouped, scores: Any, rows: Any = None) -> float:
    """Share of (positive, negative) pairs of one group whose positive has the higher score; ties half."""
    rows = range(len(scores)) if rows is None else rows
    ordered = [
        1.0 if scores[one] > scores[other] else 0.5 if scores[one] == scores[other] else 0.0
        for one in rows
        for other in rows
        if items.groups[one] == items.groups[other] and items.positive[one] and not items.positive[other]
    ]
    return sum(ordered) / len(ordered)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_groups", [1, 4])
def test_pairs_are_those_of_the_naive_count_and_seeds_are_averaged(seed: int, num_groups: int) -> None:
    items, scores = drawn(seed, num_groups)
    naive = [naive_auc(items, values) for values in scores]
    bootstrap = ProblemBootstrap(8, num_draws=500)
    interval = grouped_auc(items, scores, bootstrap)
    assert interval.estimate == pytest.approx(sum(naive) / 2)
    assert interval.low < interval.estimate < interval.high
    difference = grouped_auc(items, scores[:1], bootstrap, minus=scores[1:])
    assert difference.estimate == pytest.approx(naive[0] - naive[1])


def test_a_score_that_only_says_the_group_has_one_half() -> None:
    items, _ = drawn(3)
    interval = grouped_auc(items, [items.groups * 1.0], ProblemBootstrap(8, num_draws=100))
    assert (interval.low, interval.estimate, interval.high) == (0.5, 0.5, 0.5)


def test_the_interval_is_about_that_of_drawing_problems_again() -> None:
    items, scores = drawn(5)
    interval = grouped_auc(items, scores[:1], ProblemBootstrap(8, num_draws=2000))
    generator, estimates = np.random.default_rng(1), []
    for _ in range(300):
        rows = np.concatenate(
            [np.flatnonzero(items.problems == one) for one in generator.integers(8, size=8)]
        )
        estimates.append(naive_auc(items, scores[0], rows))
    low, high = np.quantile(estimates, [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.05)


def test_the_same_scores_differ_by_nothing() -> None:
    items, scores = drawn(6)
    same = grouped_auc(items, scores, ProblemBootstrap(8, num_draws=200), minus=scores)
    assert (same.low, same.estimate, same.high) == (0.0, 0.0, 0.0)


def test_without_both_classes_in_a_group_there_is_no_auc() -> None:
    items, scores = drawn(7)
    alone = Grouped(items.positive, items.problems, items.positive * 1)
    assert np.isnan(grouped_auc(alone, scores, ProblemBootstrap(8, num_draws=50)).estimate)
