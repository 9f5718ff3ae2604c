import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.rewards import AGGREGATES, aggregate, step_rewards

LOG_RATIOS = st.lists(st.floats(-30, 30, width=32), max_size=40)


def test_worked_example() -> None:
    # Steps: tokens 0-1, none, token 2. 0.5 * (1 - 3) = -1; 0; 0.5 * 4 = 2.
    result = step_rewards(np.array([1.0, -3.0, 4.0]), [2, 2, 3], beta=0.5)
    assert result.rewards.tolist() == [-1.0, 0.0, 2.0]
    assert result.values.tolist() == [-1.0, -1.0, 1.0]


@given(log_ratios=LOG_RATIOS, cuts=st.lists(st.integers(0, 40)), beta=st.floats(1e-3, 10))
def test_against_python_sums(log_ratios: list[float], cuts: list[int], beta: float) -> None:
    ends = [*sorted(min(cut, len(log_ratios)) for cut in cuts), len(log_ratios)]
    result = step_rewards(np.array(log_ratios, dtype=np.float32), ends, beta)
    expected = [beta * math.fsum(log_ratios[start:end]) for start, end in pairwise([0, *ends])]
    assert result.rewards.tolist() == pytest.approx(expected, abs=1e-9)
    values = [beta * math.fsum(log_ratios[:end]) for end in ends]
    assert result.values.tolist() == pytest.approx(values, abs=1e-9)
    assert math.fsum(result.rewards) == pytest.approx(result.values[-1], abs=1e-9)


def test_sums_of_long_float32_sequences_keep_their_precision() -> None:
    log_ratios = np.full(200_000, 0.1, dtype=np.float32)
    result = step_rewards(log_ratios, [200_000], beta=1.0)
    assert result.values[0] == pytest.approx(200_000 * float(np.float32(0.1)), rel=1e-12)


def test_steps_may_end_before_the_last_token() -> None:
    assert step_rewards(np.array([1.0, 2.0, 4.0]), [1, 2], beta=1.0).values.tolist() == [1.0, 3.0]


def test_aggregates_of_a_worked_example() -> None:
    assert aggregate(np.array([2.0, -1.0, 0.5]), num_tokens=6) == {
        "min": -1.0,
        "last": 0.5,
        "mean": 0.5,
        "sum": 1.5,
        "product": -1.0,
        "length_normalised": 0.25,
    }


def test_all_aggregates_are_named() -> None:
    assert tuple(aggregate(np.ones(1), num_tokens=1)) == AGGREGATES
    assert "length_normalised" not in aggregate(np.ones(1))


def test_a_product_that_no_statistic_could_use_is_left_out() -> None:
    assert aggregate(np.full(10, -1e10))["product"] == pytest.approx(1e100)
    assert "product" not in aggregate(np.full(11, -1e10))
    assert "product" not in aggregate(np.full(40, 1e10))
