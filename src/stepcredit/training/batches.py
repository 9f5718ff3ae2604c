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
    units: Sequence[int], sequences: Callable[[int], Sequence[Encoded]], cut: Cut
) -> list[ForwardPlan]:
    """This process's share of a step, cut so that no forward pass exceeds the budget.

    Units that share sequences, or in packed rows prompts, lie in one pass where the budget allows it, so
    that what they share is computed once. Longest units first. A unit above the budget gets a pass of its
    own. Every process gets equally many passes, since sharded models need all processes in each of them.

    Args:
        units: The step's units, at least one.
        sequences: Of a unit.
        cut: Budget, layout and processes.
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
        groups: Units.
        sequences: Of a unit.
        packed: Whether sequences lie in one row.
    """
    return [_Costs(group, sequences, packed=packed).of(group) for group in groups]


class _Costs:
    """What passes over some units take, in positions; equal sequences are computed once.

    Args:
        units: All that will be asked for.
        sequences: Of a unit.
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
        rows = {row for unit in units for row in self.rows[unit]}
        if not self.packed:
            return len(rows) * max(self.lengths[row] for row in rows)
        responses = sum(self.lengths[row] - self.prompt_lengths[self.prompts[row]] for row in rows)
        return responses + sum(self.prompt_lengths[prompt] for prompt in {self.prompts[row] for row in rows})

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
        piece: list[int] = []
        rows: set[int] = set()

        def added(unit: int) -> int:
            return sum(self.lengths[row] for row in self.rows[unit] if row not in rows)

        while left:
            paired = len(self.rows[next(iter(left))]) > 1
            unit = min(left, key=added) if piece and paired else next(iter(left))
            if piece and self.of([*piece, unit]) > budget:
                yield piece
                piece, rows = [], set()
                continue
            piece.append(unit)
            rows.update(self.rows[unit])
            del left[unit]
        yield piece

    def joined(self, pieces: Sequence[list[int]], budget: int) -> list[list[int]]:
        """Consecutive pieces in common passes where they fit."""
        passes: list[list[int]] = []
        for piece in pieces:
            if passes and self.of([*passes[-1], *piece]) <= budget:
                passes[-1] += piece
            else:
                passes.append(list(piece))
        return passes
