"""Keys and values of token sequences, kept so that what continues one need not be read again.

A tree of pieces: each holds the tokens in which a sequence goes on after the one that it continues, and their
keys and values. Sequences that share a beginning hold it once, so forking one costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stepcredit.keyvalues.rows import RowCache, States


@dataclass(eq=False)
class _Piece:
    """Tokens ``start`` to ``start + len(tokens)`` of a sequence, the tokens before them being its parent's.

    Attributes:
        parent: The piece that this one leaves, or ``None`` for the root.
        start: Tokens before it.
        numbers: One number per token, e.g. its log-probability; NaN where unknown.
        children: By how many of the piece's tokens come before the child, and the child's first token.
        used: When it was last looked up.
    """

    parent: _Piece | None
    start: int
    tokens: tuple[int, ...]
    states: States
    numbers: NDArray[np.float32]
    children: dict[tuple[int, int], _Piece] = field(default_factory=dict)
    used: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """The beginning of a sequence that is held.

    Attributes:
        parts: Pieces from the first token on, with how many tokens of each belong to the sequence.
    """

    parts: tuple[tuple[_Piece, int], ...]
    length: int

    def numbers(self) -> NDArray[np.float32]:
        """The number kept for each token, shape ``(length,)``."""
        return np.concatenate(
            [np.zeros(0, np.float32), *(piece.numbers[:used] for piece, used in self.parts)]
        )

    def copy_to(self, cache: RowCache, row: int, column: int, length: int) -> None:
        """Copy the first ``length`` tokens' keys and values into a row, from ``column`` on."""
        for piece, used in self.parts:
            taken = min(used, length)
            if taken <= 0:
                return
            states = tuple((keys[:, :taken], values[:, :taken]) for keys, values in piece.states)
            cache.write(row, column, states)
            column, length = column + taken, length - taken


class PrefixStore:
    """Holds sequences up to a number of tokens; those not looked up for longest are dropped first.

    Args:
        max_tokens: Most tokens held. A token costs two vectors per layer and key-value head.

    Raises:
        ValueError: ``max_tokens`` is below 1.
    """

    def __init__(self, max_tokens: int) -> None:
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
        self.max_tokens = max_tokens
        self.num_tokens = 0
        self._root = _Piece(None, 0, (), (), np.zeros(0, np.float32))
        self._clock = 0

    def longest(self, tokens: Sequence[int]) -> Held:
        """The longest beginning of ``tokens`` that is held."""
        self._clock += 1
        parts: list[tuple[_Piece, int]] = []
        piece, position = self._root, 0
        while True:
            piece.used = self._clock
            used = _matching(piece.tokens, tokens, position)
            position += used
            if used:
                parts.append((piece, used))
            if position == len(tokens) or (used, tokens[position]) not in piece.children:
                return Held(tuple(parts), position)
            piece = piece.children[used, tokens[position]]

    def keep(
        self,
        tokens: Sequence[int],
        read: Callable[[int, int], States],
        numbers: NDArray[np.float32] | None = None,
    ) -> None:
        """Hold ``tokens`` whole.

        Args:
            tokens: A sequence from its first token on.
            read: Gives keys and values of tokens ``first`` to ``last``; called with what is not held.
            numbers: One number per token.
        """
        held = self.longest(tokens)
        if held.length == len(tokens):
            return
        parent, used = held.parts[-1] if held.parts else (self._root, 0)
        fresh = tuple(tokens[held.length :])
        own = np.full(len(tokens), np.nan, np.float32) if numbers is None else numbers
        states = read(held.length, len(tokens))
        piece = _Piece(parent, held.length, fresh, states, own[held.length :].copy(), used=self._clock)
        parent.children[used, fresh[0]] = piece
        self.num_tokens += len(fresh)
        self._drop()

    def clear(self) -> None:
        """Hold nothing."""
        self._root.children.clear()
        self.num_tokens = 0

    def _drop(self) -> None:
        """Drop ends of sequences, those not used for longest first, until the rest fits."""
        while self.num_tokens > self.max_tokens:
            leaves = [
                piece for piece in _pieces(self._root) if not piece.children and piece.used < self._clock
            ]
            if not leaves:
                return
            oldest = min(leaves, key=lambda piece: piece.used)
            assert oldest.parent is not None
            place = (oldest.start - oldest.parent.start, oldest.tokens[0])
            del oldest.parent.children[place]
            self.num_tokens -= len(oldest.tokens)


def _matching(piece: Sequence[int], tokens: Sequence[int], first: int) -> int:
    """How many of a piece's tokens are those of ``tokens`` from ``first`` on."""
    pairs = zip(piece, tokens[first : first + len(piece)], strict=False)
    return next(
        (number for number, (own, other) in enumerate(pairs) if own != other),
        min(len(piece), len(tokens) - first),
    )


def _pieces(root: _Piece) -> Iterator[_Piece]:
    stack = list(root.children.values())
    while stack:
        piece = stack.pop()
        yield piece
        stack += piece.children.values()
