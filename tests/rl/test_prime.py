from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.errors import DataError
from stepcredit.rl import prime_advantages


def naive(
    rewards: list[list[float]], outcomes: list[float], prompts: list[int], discount: float
) -> list[list[float]]:
    """Equation 5 as it is written, one sum after another."""
    advantages = []
    for i, tokens in enumerate(rewards):
        others = [j for j in range(len(rewards)) if prompts[j] == prompts[i] and j != i]
        process = sum(math.fsum(rewards[j]) / len(rewards[j]) for j in others) / len(others)
        outcome = sum(outcomes[j] for j in others) / len(others)
        advantages.append(
            [
                math.fsum(discount ** (s - t) * (tokens[s] - process) for s in range(t, len(tokens)))
                + outcomes[i]
                - outcome
                for t in range(len(tokens))
            ]
        )
    return advantages


def test_two_responses_by_hand() -> None:
    # Means are 2 and 1, so 1 is taken from each token of the first, and 2 from the second's.
    first, second = prime_advantages([np.array([1.0, 3.0]), np.array([1.0])], [1.0, 0.0], ["p", "p"])
    assert first.tolist() == [(1 - 1) + (3 - 1) + 1, (3 - 1) + 1]
    assert second.tolist() == [(1 - 2) - 1]


def test_a_discount_by_hand() -> None:
    # The other response's mean is 0, and outcomes are equal.
    (first, _) = prime_advantages(
        [np.array([1.0, 2.0, 4.0]), np.array([0.0])], [1.0, 1.0], [0, 0], discount=0.5
    )
    assert first.tolist() == [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4.0]


def test_three_outcomes_by_hand() -> None:
    zeros = [np.zeros(2)] * 3
    advantages = prime_advantages(zeros, [1.0, 0.0, 0.0], [0, 0, 0])
    assert [array.tolist() for array in advantages] == [[1.0, 1.0], [-0.5, -0.5], [-0.5, -0.5]]


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_what_tools_wrote_changes_nothing(discount: float) -> None:
    rewards = [np.array([1.0, 3.0, 2.0]), np.array([1.0, -2.0])]
    alone = prime_advantages(rewards, [1.0, 0.0], ["p", "p"], discount=discount)
    with_tools = [np.array([1.0, 0.0, 0.0, 0.0, 3.0, 2.0]), np.array([1.0, 0.0, -2.0])]
    masks = [[1, 0, 0, 0, 1, 1], [1, 0, 1]]
    between = prime_advantages(with_tools, [1.0, 0.0], ["p", "p"], loss_masks=masks, discount=discount)
    for array, twin, mask in zip(between, alone, masks, strict=True):
        assert array[np.array(mask) == 1].tolist() == twin.tolist()
        assert not array[np.array(mask) == 0].any()


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ([[1]], "2 arrays of token rewards and 1 masks"),
        ([[1, 1], [1]], "response 1: has a mask that is not one 0 or 1 per token"),
        ([[1, 1], [1, 2]], "response 1: has a mask that is not one 0 or 1 per token"),
        ([[0, 0], [1, 1]], "response 0: has no token that the policy wrote"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks: list[list[int]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        prime_advantages([np.zeros(2)] * 2, [1.0, 0.0], ["p", "p"], loss_masks=masks)


def test_weights_scale_their_terms() -> None:
    rewards, outcomes = [np.array([1.0, 3.0]), np.array([1.0])], [1.0, 0.0]
    process = prime_advantages(rewards, outcomes, [0, 0], outcome_weight=0.0)
    outcome = prime_advantages(rewards, outcomes, [0, 0], process_weight=0.0)
    both = prime_advantages(rewards, outcomes, [0, 0], process_weight=2.0, outcome_weight=3.0)
    for left, right, total in zip(process, outcome, both, strict=True):
        assert total == pytest.approx(2 * left + 3 * right)


@given(
    st.lists(
        st.tuples(st.lists(st.floats(-20, 20), min_size=1, max_size=7), st.floats(-2, 2), st.integers(0, 1)),
        min_size=4,
        max_size=9,
    ),
    st.sampled_from([1.0, 0.9, 0.0]),
)
def test_the_naive_twin_agrees(rows: list[tuple[list[float], float, int]], discount: float) -> None:
    rows += [(*row[:2], prompt) for prompt in (0, 1) for row in rows[:2]]
    columns: Any = [[row[part] for row in rows] for part in range(3)]
    expected = naive(columns[0], columns[1], columns[2], discount)
    advantages = prime_advantages(
        [np.array(tokens) for tokens in columns[0]], *columns[1:], discount=discount
    )
    for array, twin in zip(advantages, expected, strict=True):
        assert array == pytest.approx(np.array(twin), abs=1e-9)


def test_a_response_does_not_move_its_own_baseline() -> None:
    others = [np.array([1.0, 2.0]), np.array([0.5])]
    small, large = (
        prime_advantages([np.array([value]), *others], [0.0, 1.0, 0.0], [0, 0, 0])[0][0]
        for value in (1.0, 4.0)
    )
    assert large - small == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("rewards", "outcomes", "prompts", "words"),
    [
        ([np.zeros(1)] * 3, [0.0] * 3, [0, 0, 1], "response 2: is the only response to its prompt"),
        (
            [np.zeros(1)] * 2,
            [0.0],
            [0, 0],
            "there are 2 arrays of token rewards, 1 outcomes and 2 prompt ids",
        ),
        ([np.zeros(0), np.zeros(1)], [0.0] * 2, [0, 0], "response 0: has no tokens"),
        ([np.array([np.nan]), np.zeros(1)], [0.0] * 2, [0, 0], "response 0: .*not a finite number"),
        ([np.zeros(1)] * 2, [0.0, np.inf], [0, 0], "response 1: .*not a finite number"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    rewards: list[np.ndarray], outcomes: list[float], prompts: list[int], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        prime_advantages(rewards, outcomes, prompts)


def test_a_discount_is_a_share() -> None:
    with pytest.raises(DataError, match=r"discount: must lie in \[0, 1\], got 1.5"):
        prime_advantages([np.zeros(1)] * 2, [0.0] * 2, [0, 0], discount=1.5)
