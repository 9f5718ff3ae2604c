"""Steps and forward passes: every unit once, within the budget, the same plan in every process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.training.batches import Cut, EpochSampler, ForwardPlan, plan_forwards
from stepcredit.types import Encoded


def alone(num_units: int) -> list[list[int]]:
    return [[unit] for unit in range(num_units)]


class TestEpochSampler:
    def test_groups_stay_side_by_side(self) -> None:
        sampler = EpochSampler([[0, 1, 2], [3], [4, 5]], 4, seed=1)
        units = [unit for step in sampler for unit in step]
        assert sorted(units) == list(range(6))
        assert units[units.index(0) :][:3] == [0, 1, 2]
        assert units.index(5) == units.index(4) + 1

    @given(st.integers(1, 50), st.integers(1, 12), st.integers(0, 5))
    def test_an_epoch_holds_every_unit_once(self, num_units: int, batch_size: int, epoch: int) -> None:
        sampler = EpochSampler(alone(num_units), batch_size, seed=3)
        steps = list(sampler.order(epoch))
        assert len(steps) == len(sampler)
        assert sorted(unit for step in steps for unit in step) == list(range(num_units))
        assert all(len(step) == batch_size for step in steps[:-1])

    def test_epochs_and_seeds_have_orders_of_their_own(self) -> None:
        orders = {
            str(list(EpochSampler(alone(20), 4, seed=seed).order(epoch)))
            for seed in (0, 1)
            for epoch in (0, 1)
        }
        assert len(orders) == 4

    def test_iterating_asks_for_the_current_epoch(self) -> None:
        epoch = [0]
        sampler = EpochSampler(alone(20), 4, seed=0, epoch=lambda: epoch[0])
        first = list(sampler)
        epoch[0] = 1
        assert list(sampler) == list(sampler.order(1)) != first


def sequence(prompt: int, number: int, response: int, prompt_tokens: int = 5) -> Encoded:
    """A response of so many tokens that no other number has."""
    return Encoded((*[prompt] * prompt_tokens, *[1000 + number] * response), prompt_tokens)


def positions(sequences: list[Encoded], *, packed: bool) -> int:
    """What a pass over these computes, counted one by one."""
    distinct = set(sequences)
    if not packed:
        return len(distinct) * max(len(item.token_ids) for item in distinct)
    seen = {item.token_ids[:end] for item in distinct for end in range(1, len(item.token_ids) + 1)}
    return len(seen)


class TestPlanForwards:
    @given(
        st.booleans(),
        st.lists(
            st.lists(st.tuples(st.integers(0, 6), st.integers(1, 30)), min_size=1, max_size=2),
            min_size=1,
            max_size=30,
        ),
        st.integers(1, 120),
        st.integers(1, 5),
    )
    def test_units_are_divided_within_the_budget(
        self, packed: bool, rows: list[list[tuple[int, int]]], budget: int, num_processes: int
    ) -> None:
        data = [
            [sequence(unit % 3, number, response) for number, response in row]
            for unit, row in enumerate(rows)
        ]
        units = list(range(len(data)))
        plans = [
            plan_forwards(
                units,
                data.__getitem__,
                Cut(token_budget=budget, packed=packed, process=rank, num_processes=num_processes),
            )
            for rank in range(num_processes)
        ]
        assert len({len(plan) for plan in plans}) == 1
        counted = [unit for plan in plans for forward in plan if forward.counted for unit in forward.units]
        assert sorted(counted) == units
        for forward in (forward for plan in plans for forward in plan):
            items = [item for unit in forward.units for item in data[unit]]
            assert len(forward.units) == 1 or positions(items, packed=packed) <= budget

    @pytest.mark.parametrize("packed", [False, True])
    def test_a_prompts_pairs_lie_in_one_pass_that_computes_each_response_once(self, packed: bool) -> None:
        responses = [[sequence(prompt, 8 * prompt + number, 10) for number in range(8)] for prompt in (1, 2)]
        data = [[right, wrong] for group in responses for right in group[:4] for wrong in group[4:]]
        budget = 5 + 8 * 10 if packed else 8 * 15
        plans = plan_forwards(range(32), data.__getitem__, Cut(token_budget=budget, packed=packed))
        assert [sorted(plan.units) for plan in plans] == [list(range(16)), list(range(16, 32))]

    def test_pairs_that_do_not_fit_are_cut_where_least_is_computed_again(self) -> None:
        group = [sequence(1, number, 10) for number in range(8)]
        data = [[right, wrong] for right in group[:4] for wrong in group[4:]]
        plans = plan_forwards(range(16), data.__getitem__, Cut(token_budget=5 + 4 * 10, packed=True))
        computed = [len({item for unit in plan.units for item in data[unit]}) for plan in plans]
        assert max(computed) == 4
        assert sum(computed) <= 20

    def test_packed_responses_to_a_prompt_lie_together(self) -> None:
        data = [[sequence(unit % 2, unit, 10 + unit)] for unit in range(8)]
        plans = plan_forwards(range(8), data.__getitem__, Cut(token_budget=70, packed=True))
        assert [sorted(plan.units) for plan in plans] == [[1, 3, 5, 7], [0, 2, 4, 6]]

    def test_a_process_without_units_keeps_in_step_with_a_pass_that_does_not_count(self) -> None:
        plan = plan_forwards(
            [7], lambda _: [sequence(1, 1, 5)], Cut(token_budget=100, process=1, num_processes=2)
        )
        assert plan == [ForwardPlan((7,), counted=False)]
