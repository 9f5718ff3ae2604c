"""Which examples make up an optimizer step, and how a step's work is cut into forward passes.

A step's batch is the same whatever the number of processes and the token budget: they only decide
where its units are computed. Each process sees the whole plan, so no communication is needed for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler


@dataclass(frozen=True, slots=True)
class ForwardPlan:
    """One forward pass.

    Attributes:
        units: Indices of units.
        counted: Whether its loss counts. Passes that do not count keep processes with less work in step.
    """

    units: tuple[int, ...]
    counted: bool = True


class EpochSampler(Sampler[list[int]]):
    """Shuffles units anew each epoch, by seed and epoch only, and yields an optimizer step's units.

    Args:
        groups: Units that stay side by side: each alone, or those of one prompt together.
        batch_size: Units per step; the last step of an epoch may have fewer.
        seed: Seed of the order.
        epoch: Tells the current epoch when an iteration starts.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        batch_size: int,
        *,
        seed: int,
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self.groups, self.batch_size, self.seed, self.epoch = groups, batch_size, seed, epoch
        self.num_units = sum(len(group) for group in groups)

    def __len__(self) -> int:
        return math.ceil(self.num_units / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        return self.order(self.epoch())

    def order(self, epoch: int) -> Iterator[list[int]]:
        """The steps of one epoch."""
        order = np.random.default_rng([self.seed, 4, epoch]).permutation(len(self.groups))
        units = [unit for group in order for unit in self.groups[int(group)]]
        for start in range(0, self.num_units, self.batch_size):
            yield units[start : start + self.batch_size]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How a step is cut into forward passes.

    Attributes:
        token_budget: Most tokens of a pass, padding included.
        packed: Sequences lie in one row without padding.
        process: Rank.
        num_processes: World size.
    """

    token_budget: int
    packed: bool = False
    process: int = 0
    num_processes: int = 1


def plan_forwards(
    units: Sequence[int], lengths: Callable[[int], Sequence[int]], cut: Cut
) -> list[ForwardPlan]:
    """This process's share of a step, cut so that no forward pass exceeds the budget.

    Longest units first. A unit above the budget gets a pass of its own. Every process gets equally many
    passes, since sharded models need all processes in each of them.

    Args:
        units: The step's units.
        lengths: Sequence lengths of a unit.
        cut: Budget, layout and processes.
    """
    order = sorted(units, key=lambda unit: (-max(lengths(unit)), unit))
    shares = [_passes(order[rank :: cut.num_processes], lengths, cut) for rank in range(cut.num_processes)]
    mine = [ForwardPlan(passing) for passing in shares[cut.process]]
    filler = ForwardPlan((order[-1],), counted=False)
    return mine + [filler] * (max(len(share) for share in shares) - len(mine))


def _passes(units: Sequence[int], lengths: Callable[[int], Sequence[int]], cut: Cut) -> list[tuple[int, ...]]:
    passes: list[tuple[int, ...]] = []
    current: list[int] = []
    rows: list[int] = []
    for unit in units:
        more = [*rows, *lengths(unit)]
        if current and (sum(more) if cut.packed else max(more) * len(more)) > cut.token_budget:
            passes.append(tuple(current))
            current, more = [], list(lengths(unit))
        current.append(unit)
        rows = more
    if current:
        passes.append(tuple(current))
    return passes
