from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stepcredit.stats import Interval, ProblemBootstrap
from stepcredit_study.word_problems.outcomes import as_list, slip_auc


def drawn(seed: int) -> tuple[Any, Any, list[Any]]:
    generator = np.random.default_rng(seed)
    is_slip = generator.random(60) < 0.3
    problems = generator.integers(8, size=60)
    rewards = [generator.integers(0, 9, size=60) - 3.0 * is_slip for _ in range(2)]
    return is_slip, problems, rewards


def naive_auc(rewards: Any, is_slip: Any) -> float:
    """Share of (slip, right step) pairs in which the slip's reward is the lower one; ties half."""
    scores = [
        1.0 if rewards[slip] < rewards[right] else 0.5 if rewards[slip] == rewards[right] else 0.0
        for slip in np.flatnonzero(is_slip)
        for right in np.flatnonzero(~is_slip)
    ]
    return sum(scores) / len(scores)


@pytest.mark.parametrize("seed", range(3))
def test_slips_are_found_as_by_the_naive_count_and_seeds_are_averaged(seed: int) -> None:
    is_slip, problems, rewards = drawn(seed)
    naive = [naive_auc(values, is_slip) for values in rewards]
    bootstrap = ProblemBootstrap(8, num_draws=500)
    interval = slip_auc(rewards, None, is_slip, problems, bootstrap)
    assert interval.estimate == pytest.approx(sum(naive) / 2)
    assert interval.low < interval.estimate < interval.high
    difference = slip_auc(rewards[:1], rewards[1:], is_slip, problems, bootstrap)
    assert difference.estimate == pytest.approx(naive[0] - naive[1])


def test_the_interval_is_about_that_of_drawing_problems_again() -> None:
    is_slip, problems, rewards = drawn(5)
    interval = slip_auc(rewards[:1], None, is_slip, problems, ProblemBootstrap(8, num_draws=2000))
    generator, estimates = np.random.default_rng(1), []
    for _ in range(1000):
        rows = np.concatenate([np.flatnonzero(problems == one) for one in generator.integers(8, size=8)])
        if 0 < is_slip[rows].sum() < len(rows):
            estimates.append(naive_auc(rewards[0][rows], is_slip[rows]))
    low, high = np.quantile(estimates, [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.05)


def test_the_same_rewards_differ_by_nothing() -> None:
    is_slip, problems, rewards = drawn(6)
    same = slip_auc(rewards, rewards, is_slip, problems, ProblemBootstrap(8, num_draws=200))
    assert (same.low, same.estimate, same.high) == (0.0, 0.0, 0.0)


def test_without_a_slip_or_an_interval_nothing_is_reported() -> None:
    is_slip, problems, rewards = drawn(7)
    nothing = slip_auc(rewards, None, np.zeros_like(is_slip), problems, ProblemBootstrap(8, num_draws=50))
    assert as_list(nothing) is None
    assert as_list(Interval(0.5, float("nan"), float("nan"))) is None
    assert as_list(Interval(0.5, 0.4, 0.6)) == [0.5, 0.4, 0.6]
