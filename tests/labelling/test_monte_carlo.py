from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.errors import DataError
from stepcredit.labelling.monte_carlo import (
    FIELD,
    Tally,
    hard_labels,
    is_settled,
    label_rollout,
    log_mean_exp_labels,
    soft_labels,
    wilson_half_width,
    with_labels,
)
from stepcredit.types import Rollout, StepLabel

ROLLOUT = Rollout(id="r", prompt_id="p", prompt="1+1=", response="ab\ncd", correct=True)


def test_three_of_four_right() -> None:
    right, total = np.array([3]), np.array([4])
    assert soft_labels(right, total).tolist() == [0.75]
    assert hard_labels(right).tolist() == [1.0]
    # beta = 1: log((3 e + 1) / 4)
    expected = math.log((3 * math.e + 1) / 4)
    assert log_mean_exp_labels(right, total, 1.0)[0] == pytest.approx(expected, rel=1e-14)


def test_none_and_all_right_have_one_label_of_every_kind() -> None:
    right, total = np.array([0, 5]), np.array([5, 5])
    for beta in (1e-4, 0.05, 1.0, 1e4):
        assert log_mean_exp_labels(right, total, beta) == pytest.approx([0.0, 1.0], abs=1e-11)
    assert soft_labels(right, total).tolist() == hard_labels(right).tolist() == [0.0, 1.0]


@given(
    total=st.integers(1, 200),
    share=st.floats(0, 1),
    beta=st.floats(1e-3, 1e3),
)
def test_log_mean_exp_lies_between_soft_and_hard(total: int, share: float, beta: float) -> None:
    right = round(share * total)
    label = log_mean_exp_labels(np.array([right]), np.array([total]), beta)[0]
    assert right / total - 1e-9 <= label <= float(right > 0) + 1e-12


@given(total=st.integers(1, 50), share=st.floats(0, 1), beta=st.floats(0.02, 50))
def test_log_mean_exp_agrees_with_its_definition(total: int, share: float, beta: float) -> None:
    outcomes = [1.0] * round(share * total) + [0.0] * (total - round(share * total))
    naive = beta * math.log(sum(math.exp(outcome / beta) for outcome in outcomes) / total)
    label = log_mean_exp_labels(np.array([sum(outcomes)], dtype=int), np.array([total]), beta)[0]
    assert label == pytest.approx(naive, abs=1e-11)


def test_log_mean_exp_tends_to_soft_and_to_hard() -> None:
    right, total = np.array([1, 4]), np.array([8, 8])
    assert log_mean_exp_labels(right, total, 1e6) == pytest.approx(soft_labels(right, total), abs=1e-6)
    assert log_mean_exp_labels(right, total, 1e-6) == pytest.approx(hard_labels(right), abs=1e-5)


def test_wilson_interval_of_a_half() -> None:
    # p = 1/2, n = 16: z / (1 + z^2 / 16) * sqrt(1/64 + z^2 / 1024)
    z = 1.959963984540054
    expected = z / (1 + z * z / 16) * math.sqrt(1 / 64 + z * z / 1024)
    assert wilson_half_width(Tally(8, 16)) == pytest.approx(expected, rel=1e-14)


def test_hard_labels_settle_with_the_first_right_completion() -> None:
    assert is_settled(Tally(1, 2), "hard", 0.01)
    assert not is_settled(Tally(1, 2), "soft", 0.01)
    assert not is_settled(Tally(0, 2), "hard", 0.01)
    assert is_settled(Tally(0, 1000), "hard", 0.01)
    assert not is_settled(Tally(0, 0), "soft", 0.5)


def test_all_kinds_are_kept_and_one_is_chosen() -> None:
    labelled = label_rollout(ROLLOUT, [(3, Tally(1, 4)), (5, Tally(1, 1))], kind="soft", beta=0.5)
    assert labelled.step_labels == (StepLabel(3, 0.25), StepLabel(5, 1.0))
    assert labelled.extras[FIELD]["right"] == [1, 1]
    assert with_labels(labelled, "hard").step_labels == (StepLabel(3, 1.0), StepLabel(5, 1.0))


def test_steps_without_completions_are_left_out() -> None:
    labelled = label_rollout(ROLLOUT, [(3, Tally(0, 0)), (5, Tally(1, 1))], kind="soft", beta=0.5)
    assert labelled.step_labels == (StepLabel(5, 1.0),)
    assert label_rollout(ROLLOUT, [(3, Tally(0, 0))], kind="soft", beta=0.5) == ROLLOUT


def test_a_rollout_without_labels_says_how_to_get_them() -> None:
    with pytest.raises(DataError, match="label math-shepherd"):
        with_labels(ROLLOUT, "soft")
