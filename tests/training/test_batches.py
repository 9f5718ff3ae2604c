"""Steps and forward passes: every unit once, within the budget, the same plan in every process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stepcredit.training.batches import Cut, EpochSampler, ForwardPlan, plan_forwards


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


class TestPlanForwards:
    @given(
        st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=2), min_size=1, max_size=30),
        st.integers(1, 120),
        st.integers(1, 5),
    )
    def test_units_are_divided_within_the_budget(
        self, lengths: list[list[int]], budget: int, num_processes: int
    ) -> None:
        units = list(range(len(lengths)))
        plans = [
            plan_forwards(
                units,
                lengths.__getitem__,
                Cut(token_budget=budget, process=rank, num_processes=num_processes),
            )
            for rank in range(num_processes)
        ]
        assert len({len(plan) for plan in plans}) == 1
        counted = [unit for plan in plans for forward in plan if forward.counted for unit in forward.units]
        assert sorted(counted) == units
        for forward in (forward for plan in plans for forward in plan):
            rows = [length for unit in forward.units for length in lengths[unit]]
            assert len(forward.units) == 1 or max(rows) * len(rows) <= budget

    def test_a_process_without_units_keeps_in_step_with_a_pass_that_does_not_count(self) -> None:
        plan = plan_forwards([7], lambda _: [5], Cut(token_budget=100, process=1, num_processes=2))
        assert plan == [ForwardPlan((7,), counted=False)]
