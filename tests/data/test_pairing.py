"""Balancing, pairing and mismatching: what is kept, how often, and that a seed decides it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.data.pairing import (
    Balance,
    balance_responses,
    mismatch_responses,
    pair_responses,
)
from stepcredit.errors import DataError

rows = st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=60)


class TestPairs:
    def test_all_right_times_all_wrong_within_a_prompt(self) -> None:
        pairs = pair_responses(["a", "a", "b", "a", "b"], [True, False, True, False, True])
        assert set(pairs.indices) == {(0, 1), (0, 3)}
        assert (pairs.num_prompts, pairs.only_right, pairs.only_wrong, pairs.not_used) == (1, 1, 0, 0)

    def test_pairs_that_do_not_differ_are_left_out_before_the_limit_and_counted(self) -> None:
        pairs = pair_responses(list("aaabb"), [True, True, False, True, False], list("xyxzz"), limit=1)
        assert pairs.indices == ((1, 2),)
        assert (pairs.identical, pairs.not_used, pairs.num_prompts) == (2, 0, 1)

    def test_at_most_the_limit_a_prompt_and_the_rest_is_counted(self) -> None:
        pairs = pair_responses(["a"] * 12, [True] * 6 + [False] * 6, limit=16)
        assert len(pairs.indices) == len(set(pairs.indices)) == 16
        assert pairs.not_used == 20

    def test_no_limit_keeps_all(self) -> None:
        assert len(pair_responses(["a"] * 12, [True] * 6 + [False] * 6, limit=None).indices) == 36

    def test_a_limit_below_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            pair_responses([], [], limit=0)

    @given(rows, st.integers(1, 20))
    def test_every_pair_is_of_one_prompt_right_first(self, data: list[tuple[str, bool]], limit: int) -> None:
        prompts, right = [row[0] for row in data], [row[1] for row in data]
        pairs = pair_responses(prompts, right, limit=limit)
        assert all(
            prompts[chosen] == prompts[rejected] and right[chosen] and not right[rejected]
            for chosen, rejected in pairs.indices
        )
        counts = Counter(prompts[chosen] for chosen, _ in pairs.indices)
        assert all(count <= limit for count in counts.values())
        assert pairs.num_prompts + pairs.only_right + pairs.only_wrong == len(set(prompts))

    def test_the_seed_decides_the_subset(self) -> None:
        prompts, right = ["a"] * 20, [True] * 10 + [False] * 10
        first = pair_responses(prompts, right, seed=1)
        assert first == pair_responses(prompts, right, seed=1)
        assert first != pair_responses(prompts, right, seed=2)


class TestBalance:
    @given(rows, st.sampled_from(["dataset", "instruction"]), st.integers(0, 3))
    def test_classes_are_equal_and_nothing_more_is_dropped(
        self, data: list[tuple[str, bool]], how: Balance, seed: int
    ) -> None:
        prompts, right = [row[0] for row in data], [row[1] for row in data]
        kept = balance_responses(prompts, right, how, seed=seed)
        assert list(kept) == sorted(set(kept.tolist()))
        groups = [list(range(len(data)))]
        if how == "instruction":
            groups = [[i for i, row in enumerate(prompts) if row == prompt] for prompt in set(prompts)]
        for group in groups:
            smaller = min(sum(right[i] for i in group), sum(not right[i] for i in group))
            inside = [i for i in kept.tolist() if i in group]
            assert sum(right[i] for i in inside) == sum(not right[i] for i in inside) == smaller

    def test_none_keeps_everything(self) -> None:
        assert balance_responses(["a"] * 3, [True] * 3, "none").tolist() == [0, 1, 2]


class TestMismatch:
    @given(rows)
    def test_each_response_is_used_once_and_never_under_its_own_prompt(
        self, data: list[tuple[str, bool]]
    ) -> None:
        prompts = [row[0] for row in data]
        largest = max(Counter(prompts).values(), default=0)
        if not prompts or 2 * largest > len(prompts):
            return
        order = mismatch_responses(prompts, seed=5)
        assert sorted(order.tolist()) == list(range(len(prompts)))
        assert all(prompts[i] != prompts[j] for i, j in enumerate(order.tolist()))

    def test_the_seed_decides_it(self) -> None:
        prompts = [str(i // 2) for i in range(40)]
        assert np.array_equal(mismatch_responses(prompts, seed=1), mismatch_responses(prompts, seed=1))
        assert not np.array_equal(mismatch_responses(prompts, seed=1), mismatch_responses(prompts, seed=2))

    def test_a_prompt_with_more_than_half_of_the_responses_is_refused(self) -> None:
        with pytest.raises(DataError, match="more than half"):
            mismatch_responses(["a", "a", "b"])
