"""Held-out metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepcredit.training.heldout import heldout_metrics, pair_accuracy


def test_pair_accuracy_counts_pairs_within_prompts_and_ties_half() -> None:
    # Prompt a: right 2 against wrong 1 and 3: one of two. Prompt b: a tie: one half. Prompt c: no pair.
    rewards = np.array([2.0, 1.0, 3.0, 5.0, 5.0, 9.0])
    right = np.array([True, False, False, True, False, True])
    assert pair_accuracy(rewards, right, list("aaabbc")) == pytest.approx(1.5 / 3)


def test_pair_accuracy_without_pairs_is_nan() -> None:
    assert math.isnan(pair_accuracy(np.array([1.0, 2.0]), np.array([True, False]), ["a", "b"]))


def test_metrics_by_hand() -> None:
    rewards = np.array([0.0, math.log(3)])
    metrics = heldout_metrics(
        rewards, np.array([0.0, 1.0]), ["a", "a"], np.array([4.0, 2.0]), log_ratio_sums=np.array([-3.0, 1.0])
    )
    # sigmoid gives 0.5 and 0.75: the bins' errors are 0.5 and 0.25.
    assert metrics == pytest.approx(
        {
            "auc": 1.0,
            "pair_accuracy": 1.0,
            "calibration_error": 0.375,
            "reward_right": math.log(3),
            "reward_wrong": 0.0,
            "length_correlation": -1.0,
            "kl_to_reference": 1.0,
        }
    )


def test_what_needs_both_classes_is_left_out_with_one() -> None:
    metrics = heldout_metrics(np.array([1.0, 2.0]), np.ones(2), ["a", "b"], np.array([1.0, 2.0]))
    assert set(metrics) == {"calibration_error", "reward_right", "length_correlation"}


def test_rounding_noise_is_no_order() -> None:
    metrics = heldout_metrics(
        np.array([1e-7, -1e-7, 0.0]), np.array([1.0, 0.0, 0.0]), ["a"] * 3, np.array([1.0, 2.0, 3.0])
    )
    assert metrics["auc"] == metrics["pair_accuracy"] == 0.5


@pytest.mark.parametrize("beta", [1e-3, 0.05, 1.0, 1e3])
def test_what_is_a_tie_does_not_depend_on_beta(beta: float) -> None:
    right = np.array([1.0, 0.0, 0.0])

    def auc(log_ratio_sums: list[float]) -> float:
        sums = np.array(log_ratio_sums)
        return heldout_metrics(beta * sums, right, ["a"] * 3, np.ones(3), sums)["auc"]

    assert auc([0.004, 0.0, 0.0]) == 1.0
    assert auc([1e-5, -1e-5, 0.0]) == 0.5
