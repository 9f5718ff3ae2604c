"""Which computation sequences can share: a tree of their common prefixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MIN_SAVED_TOKENS = 16
"""A branch that would save fewer tokens than this costs more in bookkeeping than it saves."""


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Token sequences as paths from a root.

    Attributes:
        segments: Tokens of each node, none empty; a node comes after its parent.
        parents: Index of the node that each one continues; -1 for those that start a sequence.
        leaves: For each sequence, the node at whose end it ends.
    """

    segments: tuple[tuple[int, ...], ...]
    parents: tuple[int, ...]
    leaves: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens in all nodes: what a model has to compute."""
        return sum(len(segment) for segment in self.segments)

    def path(self, node: int) -> tuple[int, ...]:
        """Nodes from the root to ``node``, both included."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = self.parents[node]
        return tuple(reversed(nodes))


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of leading tokens that two sequences share."""
    for position, (left, right) in enumerate(zip(first, second, strict=False)):
        if left != right:
            return position
    return min(len(first), len(second))


def prefix_tree(sequences: Sequence[tuple[int, ...]], *, min_saved: int = MIN_SAVED_TOKENS) -> PrefixTree:
    """Build the tree of common prefixes; equal sequences end at one node.

    Args:
        sequences: None empty.
        min_saved: A shared piece becomes a node of its own where that saves at least this many tokens.
    """
    distinct = sorted(set(sequences))
    segments: list[tuple[int, ...]] = []
    parents: list[int] = []
    leaf_of: dict[tuple[int, ...], int] = {}

    def add(tokens: tuple[int, ...], parent: int) -> int:
        if not tokens:
            return parent
        segments.append(tokens)
        parents.append(parent)
        return len(segments) - 1

    # Each entry: sorted sequences that share their first `common` tokens, of which `placed` are in `parent`.
    stack = [(members, 0, -1) for members in reversed(list(_by_next_token(distinct, 0)))]
    while stack:
        members, placed, parent = stack.pop()
        common = common_length(members[0], members[-1])
        if len(members) > 1 and (len(members) - 1) * (common - placed) >= min_saved:
            parent, placed = add(members[0][placed:common], parent), common
        if len(members[0]) == common:
            leaf_of[members[0]] = add(members[0][placed:], parent)
            members = members[1:]
        stack += [(group, placed, parent) for group in reversed(list(_by_next_token(members, common)))]
    return PrefixTree(tuple(segments), tuple(parents), tuple(leaf_of[sequence] for sequence in sequences))


def _by_next_token(members: Sequence[tuple[int, ...]], position: int) -> Iterator[list[tuple[int, ...]]]:
    """Cut sorted sequences, all longer than ``position``, where the token there changes."""
    group: list[tuple[int, ...]] = []
    for member in members:
        if group and group[0][position] != member[position]:
            yield group
            group = []
        group.append(member)
    if group:
        yield group


def batches_by_prefix(sequences: Sequence[tuple[int, ...]], token_budget: int) -> Iterator[list[int]]:
    """Group indices so that sequences with common prefixes meet and each group's tree fits the budget.

    A sequence longer than the budget gets a batch of its own.
    """
    order = sorted(range(len(sequences)), key=lambda index: sequences[index])
    batch: list[int] = []
    tokens = 0
    for index in order:
        sequence = sequences[index]
        fresh = len(sequence) - (common_length(sequences[batch[-1]], sequence) if batch else 0)
        if batch and tokens + fresh > token_budget:
            yield batch
            batch, tokens, fresh = [], 0, len(sequence)
        batch.append(index)
        tokens += fresh
    if batch:
        yield batch
