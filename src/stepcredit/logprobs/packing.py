"""From encoded sequences to batches of tensors, by token budget and length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stepcredit.logprobs.prefixes import PrefixTree, batches_by_prefix, prefix_tree
from stepcredit.logprobs.segments import Segments
from stepcredit.types import Encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """Sequences laid out for one forward pass.

    Attributes:
        attention_mask: 1 for tokens, 0 for padding; ``None`` where the batch is packed.
        position_ids: Position of each token in its sequence; 0 at padding.
        source_index: For each scored token, the flat index (row major) of the position whose hidden state
            predicts it; sequences in input order, tokens in order.
        token_index: The flat index of each scored token itself, where heads give its value.
        targets: The scored tokens' ids.
        sequence_index: For each scored token, which sequence it belongs to.
        num_scored: Number of scored tokens of each sequence.
        segments: How a packed row is cut; ``None`` where the batch is padded.
    """

    input_ids: Int[Tensor, "rows columns"]
    attention_mask: Int[Tensor, "rows columns"] | None
    position_ids: Int[Tensor, "rows columns"]
    source_index: Int[Tensor, " scored"]
    token_index: Int[Tensor, " scored"]
    targets: Int[Tensor, " scored"]
    sequence_index: Int[Tensor, " scored"]
    num_scored: tuple[int, ...]
    segments: Segments | None = None

    @property
    def num_computed(self) -> int:
        """Positions that the backbone computes, padding included."""
        return self.input_ids.numel()

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on ``device``."""
        tensors: dict[str, Any] = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **tensors)

    def split(self, per_token: Float[Tensor, " scored"]) -> tuple[Tensor, ...]:
        """Cut a value for each scored token into one tensor per sequence."""
        return torch.split(per_token, list(self.num_scored))


def pad(
    encoded: Sequence[Encoded], *, pad_token_id: int = 0, side: Literal["left", "right"] = "right"
) -> TokenBatch:
    """One sequence a row, padded to the longest.

    Args:
        encoded: At least one sequence.
        pad_token_id: What fills the gaps; its value changes nothing.
        side: Where the gaps are.
    """
    lengths = np.array([len(item.token_ids) for item in encoded])
    columns = int(lengths.max())
    gaps = columns - lengths if side == "left" else np.zeros_like(lengths)
    positions = np.arange(columns) - gaps[:, None]
    inside = (positions >= 0) & (positions < lengths[:, None])
    input_ids = np.full((len(encoded), columns), pad_token_id)
    input_ids[inside] = np.concatenate([np.array(item.token_ids, np.int64) for item in encoded])
    starts = np.arange(len(encoded)) * columns + gaps
    token_index = np.concatenate(
        [np.array(item.scored_places, np.int64) + start for item, start in zip(encoded, starts, strict=True)]
    )
    return TokenBatch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(inside.astype(np.int64)),
        position_ids=torch.from_numpy(np.where(inside, positions, 0)),
        source_index=torch.from_numpy(token_index - 1),
        token_index=torch.from_numpy(token_index),
        **_scored_tokens(encoded),
    )


def pack(encoded: Sequence[Encoded], *, share_prefixes: bool = True) -> TokenBatch:
    """All sequences in one row without padding, common prefixes once.

    It needs a model for which :func:`~stepcredit.logprobs.support.enable_packing` holds.

    Args:
        encoded: At least one sequence.
        share_prefixes: Off: every sequence is a segment of its own.
    """
    sequences = [item.token_ids for item in encoded]
    if share_prefixes:
        tree = prefix_tree(sequences)
    else:
        tree = PrefixTree(tuple(sequences), (-1,) * len(sequences), tuple(range(len(sequences))))
    lengths = [len(segment) for segment in tree.segments]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    paths = [tree.path(node) for node in range(len(lengths))]
    flat_index = [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=False)]
    positions = [
        np.arange(length) + sum(lengths[link] for link in path[:-1])
        for path, length in zip(paths, lengths, strict=True)
    ]
    source_index, token_index = [], []
    for item, leaf in zip(encoded, tree.leaves, strict=True):
        places = np.concatenate([flat_index[link] for link in paths[leaf]])
        scored = np.array(item.scored_places, np.int64)
        source_index.append(places[scored - 1])
        token_index.append(places[scored])
    return TokenBatch(
        input_ids=torch.tensor([[token for segment in tree.segments for token in segment]]),
        attention_mask=None,
        position_ids=torch.from_numpy(np.concatenate(positions))[None],
        source_index=torch.from_numpy(np.concatenate(source_index)),
        token_index=torch.from_numpy(np.concatenate(token_index)),
        segments=Segments(tuple(lengths), tuple(path[:-1] for path in paths)),
        **_scored_tokens(encoded),
    )


def _scored_tokens(encoded: Sequence[Encoded]) -> dict[str, Any]:
    num_scored = [item.num_scored for item in encoded]
    targets = [token for item in encoded for token in item.scored_ids]
    return {
        "targets": torch.tensor(targets, dtype=torch.long),
        "sequence_index": torch.repeat_interleave(torch.tensor(num_scored)),
        "num_scored": tuple(num_scored),
    }


def batches_of(encoded: Sequence[Encoded], token_budget: int, *, packed: bool) -> Iterator[list[int]]:
    """Group indices into batches to pack, by common prefixes, or to pad, by length."""
    if packed:
        return batches_by_prefix([item.token_ids for item in encoded], token_budget)
    return batches_by_length([len(item.token_ids) for item in encoded], token_budget)


def batches_by_length(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Group indices of similar length so that each group, padded, holds at most ``token_budget`` tokens.

    Longest first, so that memory peaks at once rather than late. A sequence longer than the budget gets a
    batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batch: list[int] = []
    for index in order:
        if batch and lengths[batch[0]] * (len(batch) + 1) > token_budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
