"""Which examples make up an optimizer step, and how a step's work is cut into forward passes.

A step's batch is the same whatever the number of processes and the token budget: they only decide
where its units are computed. Each process sees the whole plan, so no communication is needed for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from stepcredit.types import Encoded


@dataclass(frozen=True, slots=True)
class ForwardPlan:
    """One forward pass.

    Attributes:
        counted: Whether its loss counts. Passes that do not count keep processes with less work in step.
    """

    units: tuple[int, ...]
    counted: bool = True


class EpochSampler(Sampler[list[int]]):
    """Shuffles units anew each epoch, by seed and epoch only, and yields an optimizer step's units.

    Args:
        groups: Units that stay side by side: each alone, or those of one prompt together.
        batch_size: Units per step; the last step of an epoch may have fewer.
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
    """

    token_budget: int
    packed: bool = False
    process: int = 0
    num_processes: int = 1


def plan_forwards(
    units: Sequence[int], sequences: Callable[[int], Sequence[Encoded]], cut: Cut
) -> list[ForwardPlan]:
    """This process's share of a step, cut so that no forward pass exceeds the budget.

    Units that share sequences, or in packed rows prompts, lie in one pass where the budget allows it, so
    that what they share is computed once. Longest units first. A unit above the budget gets a pass of its
    own. Every process gets equally many passes, since sharded models need all processes in each of them.
    """
    costs = _Costs(units, sequences, packed=cut.packed)
    pieces = [piece for cluster in costs.clusters() for piece in costs.split(cluster, cut.token_budget)]
    shares = [
        costs.joined(pieces[rank :: cut.num_processes], cut.token_budget) for rank in range(cut.num_processes)
    ]
    mine = [ForwardPlan(tuple(passing)) for passing in shares[cut.process]]
    filler = ForwardPlan((pieces[-1][-1],), counted=False)
    return mine + [filler] * (max(len(share) for share in shares) - len(mine))


def pass_sizes(
    groups: Sequence[Sequence[int]], sequences: Callable[[int], Sequence[Encoded]], *, packed: bool
) -> list[int]:
    """Tokens of a forward pass over all units of each group.

    Args:
        packed: Whether sequences lie in one row.
    """
    return [_Costs(group, sequences, packed=packed).of(group) for group in groups]


class _Costs:
    """What passes over some units take, in positions; equal sequences are computed once.

    Args:
        packed: Whether prompts are computed once too, and nothing is padded.
    """

    def __init__(
        self, units: Sequence[int], sequences: Callable[[int], Sequence[Encoded]], *, packed: bool
    ) -> None:
        self.packed = packed
        numbers: dict[tuple[tuple[int, ...], int], int] = {}
        self.rows = {
            unit: tuple(
                numbers.setdefault((item.token_ids, item.scored_start), len(numbers))
                for item in sequences(unit)
            )
            for unit in units
        }
        self.lengths = [len(tokens) for tokens, _ in numbers]
        prompts: dict[tuple[int, ...], int] = {}
        self.prompts = [prompts.setdefault(tokens[:start], len(prompts)) for tokens, start in numbers]
        self.prompt_lengths = [len(prompt) for prompt in prompts]

    def of(self, units: Iterable[int]) -> int:
        """Positions of a pass."""
        return _Pass(self).size_with(units)

    def clusters(self) -> list[list[int]]:
        """Units that share something, those with the longest sequence first."""

        def order(unit: int) -> tuple[int, int]:
            return -max(self.lengths[row] for row in self.rows[unit]), unit

        clusters: dict[tuple[bool, int], list[int]] = {}
        for unit in sorted(self.rows, key=order):
            # Padded, single responses share nothing, and lie best beside others of their length.
            shares = self.packed or len(self.rows[unit]) > 1
            key = self.prompts[self.rows[unit][0]] if shares else unit
            clusters.setdefault((shares, key), []).append(unit)
        return list(clusters.values())

    def split(self, cluster: Sequence[int], budget: int) -> Iterator[list[int]]:
        """Pieces within the budget; next comes the unit that adds least to what its piece has."""
        left = dict.fromkeys(cluster)
        piece = _Pass(self)

        def added(unit: int) -> int:
            return sum(self.lengths[row] for row in self.rows[unit] if row not in piece.rows)

        while left:
            paired = len(self.rows[next(iter(left))]) > 1
            unit = min(left, key=added) if piece.units and paired else next(iter(left))
            if piece.units and piece.size_with([unit]) > budget:
                yield piece.units
                piece = _Pass(self)
                continue
            piece.add([unit])
            del left[unit]
        yield piece.units

    def joined(self, pieces: Sequence[list[int]], budget: int) -> list[list[int]]:
        """Consecutive pieces in common passes where they fit."""
        passes: list[_Pass] = []
        for piece in pieces:
            if not passes or passes[-1].size_with(piece) > budget:
                passes.append(_Pass(self))
            passes[-1].add(piece)
        return [passing.units for passing in passes]


class _Pass:
    """A pass that grows; what a further unit costs is found without looking at those that are in it."""

    def __init__(self, costs: _Costs) -> None:
        self.costs = costs
        self.units: list[int] = []
        self.rows: set[int] = set()
        self._prompts: set[int] = set()
        self._longest = self._tokens = 0

    def size_with(self, units: Iterable[int]) -> int:
        """Positions of the pass if these units were in it too."""
        costs, fresh = self.costs, self._fresh(units)
        if not costs.packed:
            longest = max((costs.lengths[row] for row in fresh), default=0)
            return (len(self.rows) + len(fresh)) * max(self._longest, longest)
        return self._tokens + self._added(fresh)

    def add(self, units: Sequence[int]) -> None:
        """Take units in."""
        fresh = self._fresh(units)
        self._tokens += self._added(fresh)
        self._longest = max([self._longest, *(self.costs.lengths[row] for row in fresh)])
        self._prompts.update(self.costs.prompts[row] for row in fresh)
        self.rows |= fresh
        self.units += units

    def _fresh(self, units: Iterable[int]) -> set[int]:
        return {row for unit in units for row in self.costs.rows[unit]} - self.rows

    def _added(self, fresh: set[int]) -> int:
        """Tokens of responses and of prompts that these rows add to a packed pass."""
        costs = self.costs
        prompts = {costs.prompts[row] for row in fresh}
        responses = sum(costs.lengths[row] - costs.prompt_lengths[costs.prompts[row]] for row in fresh)
        return responses + sum(costs.prompt_lengths[prompt] for prompt in prompts - self._prompts)
