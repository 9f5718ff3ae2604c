"""Keys and values of running sequences, in buffers where rows are forked and dropped without copying all."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import (
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

_WITHOUT_CACHE: Any = getattr(cache_utils, "DummyLayer", ())
"""What stands for a layer that keeps nothing; transformers 5.17 has no such thing."""

LayerStates = tuple[Float[Tensor, "heads tokens width"], Float[Tensor, "heads tokens width"]]
"""Keys and values of one sequence in one layer."""
States = tuple[LayerStates, ...]
"""Those of every layer."""


class _Extent:
    """What all layers share: how much of the buffers is in use, and how much is worth allocating."""

    def __init__(self, expected_rows: int, expected_columns: int) -> None:
        self.rows = 0
        self.columns = 0
        self.expected_rows = expected_rows
        self.expected_columns = expected_columns

    def room(self, rows: int, columns: int, held_rows: int, held_columns: int) -> tuple[int, int]:
        """Sizes to allocate where ``rows`` and ``columns`` are needed.

        At least a quarter more than held, so that growing one by one copies nothing more than a few times.
        """
        if rows > held_rows:
            rows = max(rows, self.expected_rows, held_rows + held_rows // 4)
        if columns > held_columns:
            columns = max(columns, self.expected_columns, held_columns + held_columns // 4)
        return max(rows, held_rows), max(columns, held_columns)


class _BufferLayer(CacheLayerMixin):
    """Keys and values of one layer in two buffers of shape ``(rows, heads, columns, width)``.

    Sliding-window layers are stored whole too: the mask that transformers makes hides what lies outside.
    """

    is_sliding = False
    is_croppable = False

    def __init__(self, extent: _Extent) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.extent = extent
        self.buffers: list[Tensor] = []

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.buffers = [states.new_empty((0, *states.shape[1:])) for states in (key_states, value_states)]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, first = key_states.shape[0], self.extent.columns
        last = first + key_states.shape[2]
        self.reserve(rows, last)
        keys, values = (buffer[:rows, :, :last] for buffer in self.buffers)
        keys[:, :, first:], values[:, :, first:] = key_states, value_states
        return keys, values

    def reserve(self, rows: int, columns: int) -> None:
        """Make room for ``rows`` and ``columns``, keeping what is in use."""
        held_rows, _, held_columns, _ = self.buffers[0].shape
        if rows <= held_rows and columns <= held_columns:
            return
        rows, columns = self.extent.room(rows, columns, held_rows, held_columns)
        used_rows, used_columns = self.extent.rows, self.extent.columns
        for position, buffer in enumerate(self.buffers):
            larger = buffer.new_empty((rows, buffer.shape[1], columns, buffer.shape[3]))
            larger[:used_rows, :, :used_columns] = buffer[:used_rows, :, :used_columns]
            self.buffers[position] = larger

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.extent.columns + query_length, 0

    def get_seq_length(self) -> int:
        return self.extent.columns

    def get_max_length(self) -> int:
        return -1


class RowCache:
    """The key-value cache of a batch of sequences that all end at the same column.

    Shorter sequences are padded on the left. Rows fork (several continuations of one sequence), end, and join
    (newly read prompts) while the others go on.

    Args:
        config: The model's configuration, which says of what kind its layers are.
        expected_rows: Rows to make room for at once.
        expected_columns: Columns to make room for at once.

    Attributes:
        library: The object that goes to the model as ``past_key_values``.
        is_plain: Whether every layer keeps, and attends to, all tokens.

    Raises:
        NotImplementedError: A layer keeps something other than keys and values, e.g. a recurrent state.
    """

    def __init__(self, config: Any, expected_rows: int = 0, expected_columns: int = 0) -> None:
        self._extent = _Extent(expected_rows, expected_columns)
        self.library = DynamicCache(config=config)
        self.is_plain = all(type(layer) is DynamicLayer for layer in self.library.layers)
        self._layers: list[_BufferLayer] = []
        for position, layer in enumerate(self.library.layers):
            if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer):
                self._layers.append(_BufferLayer(self._extent))
                self.library.layers[position] = self._layers[-1]
            elif not isinstance(layer, _WITHOUT_CACHE):
                raise NotImplementedError(f"cache layers of kind {type(layer).__name__}")

    @property
    def rows(self) -> int:
        """Sequences held."""
        return self._extent.rows

    @property
    def columns(self) -> int:
        """Tokens held for each sequence, padding included."""
        return self._extent.columns

    def extend(self, rows: int, columns: int) -> None:
        """Take note that the model has just written ``columns`` more columns of ``rows`` rows."""
        self._extent.rows = rows
        self._extent.columns += columns

    def begin(self, rows: int, columns: int, like: States) -> None:
        """Hold ``rows`` rows of ``columns`` columns, all zero, before anything was read.

        Args:
            columns: Tokens of each, padding included.
            like: Any keys and values of each layer, shape ``(heads, tokens, width)``.
        """
        for layer, (keys, values) in zip(self._layers, like, strict=True):
            layer.lazy_initialization(keys[None], values[None])
            layer.reserve(rows, columns)
            for buffer in layer.buffers:
                # Zeros, not garbage: a masked column must not hold NaN.
                buffer[:rows, :, :columns] = 0
        self._extent.rows, self._extent.columns = rows, columns

    def write(self, row: int, column: int, layers: States) -> None:
        """Put keys and values, shape ``(heads, tokens, width)`` per layer, into a row from ``column`` on."""
        for layer, states in zip(self._layers, layers, strict=True):
            for buffer, state in zip(layer.buffers, states, strict=True):
                buffer[row, :, column : column + state.shape[1]] = state

    def read(self, row: int, first: int, last: int) -> States:
        """A copy of a row's keys and values in columns ``first`` to ``last`` (exclusive) of each layer."""
        return tuple(
            (keys[row, :, first:last].clone(), values[row, :, first:last].clone())
            for keys, values in (layer.buffers for layer in self._layers)
        )

    def take(
        self, padding: Int64[np.ndarray, " rows"], expected_rows: int, expected_columns: int
    ) -> list[States]:
        """Take out what each row holds after its padding; the rows stay and hold nothing.

        Args:
            padding: Unused columns at the left of each row.
        """
        held = [self.read(row, int(unused), self.columns) for row, unused in enumerate(padding)]
        for layer in self._layers:
            layer.buffers = [
                buffer.new_empty((self.rows, buffer.shape[1], 0, buffer.shape[3])) for buffer in layer.buffers
            ]
        self._extent.columns = 0
        self._extent.expected_rows, self._extent.expected_columns = expected_rows, expected_columns
        return held

    def copy_rows(
        self, sources: Int64[Tensor, " copies"], targets: Int64[Tensor, " copies"], rows: int
    ) -> None:
        """Copy rows to free places and hold ``rows`` rows from now on."""
        columns = self.columns
        for layer in self._layers if len(sources) else ():
            layer.reserve(rows, columns)
            for buffer in layer.buffers:
                buffer[targets, :, :columns] = buffer[sources, :, :columns]
        self._extent.rows = rows

    def drop_columns(self, count: int) -> None:
        """Forget the first ``count`` columns, which no sequence uses."""
        rows, columns = self.rows, self.columns
        for layer in self._layers:
            for buffer in layer.buffers:
                buffer[:rows, :, : columns - count] = buffer[:rows, :, count:columns].clone()
        self._extent.columns -= count

    def absorb(self, other: RowCache) -> None:
        """Append the rows of ``other``, aligned at the last column."""
        self._widen(other.columns - self.columns)
        first, rows = self.rows, self.rows + other.rows
        unused = self.columns - other.columns
        for mine, theirs in zip(self._layers, other._layers, strict=True):
            mine.reserve(rows, self.columns)
            for target, source in zip(mine.buffers, theirs.buffers, strict=True):
                _copy_aligned(target[first:rows, :, : self.columns], source[: other.rows], unused)
        self._extent.rows = rows

    def _widen(self, count: int) -> None:
        """Put ``count`` unused columns before the others."""
        if count <= 0:
            return
        rows, columns = self.rows, self.columns
        for layer in self._layers:
            layer.reserve(rows, columns + count)
            for buffer in layer.buffers:
                _copy_aligned(buffer[:rows, :, : columns + count], buffer[:rows, :, :columns].clone(), count)
        self._extent.columns += count


def _copy_aligned(
    target: Float[Tensor, "rows heads columns width"],
    source: Float[Tensor, "rows heads source_columns width"],
    unused: int,
) -> None:
    # Zeros, not garbage: a masked column must not hold NaN, which a weight of zero does not cancel.
    target[:, :, :unused] = 0
    target[:, :, unused:] = source[:, :, : target.shape[2] - unused]
