"""Attention over packed segments: many sequences in one row, common prefixes computed once.

A packed row is cut into segments. A segment attends to itself, causally, and to the whole of the segments
that it continues; so linear layers see neither padding nor a shared token twice. The attention is registered
with transformers as :data:`IMPLEMENTATION`; called without a layout it does what ``sdpa`` (or, with a soft
cap, ``eager``) does.

Shape legend: L tokens of a segment, C tokens of its context and itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from stepcredit.logprobs.context_attention import context_attention, takes_context
from stepcredit.logprobs.short_attention import is_short, short_attention

IMPLEMENTATION = "stepcredit_segments"

MOST_MASKED = 2**22
"""Entries of one mask: longer segments attend in blocks of queries."""
CPU_QUERIES = 256
"""Queries of a block on a CPU, whose kernel computes what a mask hides: less is hidden from a small block."""
MOST_SHARED = 2**17
"""Entries of a mask that is kept for all layers, which would each make it anew."""


@dataclass(frozen=True, slots=True)
class Segments:
    """How a packed row is cut.

    Attributes:
        lengths: Tokens of each segment; they tile the row in order.
        contexts: For each segment, the earlier segments that it continues, from the sequence's start.
        windows: The sliding windows that layers have asked for so far; ``None`` is none.
    """

    lengths: tuple[int, ...]
    contexts: tuple[tuple[int, ...], ...]
    windows: set[int | None] = field(default_factory=set, compare=False, repr=False)
    _hidden: dict[tuple[int, int | None], Tensor] = field(default_factory=dict, compare=False, repr=False)

    def hidden(self, index: int, window: int | None, like: Tensor) -> Tensor:
        """Minus infinity where a segment's tokens do not attend, 0 elsewhere; made once for all layers.

        Args:
            index: Which segment.
            window: As in :func:`visible`.
            like: A tensor with the device and dtype that are wanted; they are the same in every call.
        """
        if (index, window) not in self._hidden:
            context = sum(self.lengths[link] for link in self.contexts[index])
            mask = visible(self.lengths[index], context, window, like.device)
            empty = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
            self._hidden[index, window] = empty.masked_fill_(~mask, float("-inf"))
        return self._hidden[index, window]


def visible(length: int, context: int, window: int | None, device: torch.device) -> Tensor:
    """Which of ``context + length`` tokens each of the last ``length`` ones attends to, as booleans.

    Args:
        length: Tokens of the segment.
        context: Tokens before it.
        window: Sliding window: how many tokens a token sees, itself included; ``None`` is all.
        device: Where the mask lives.
    """
    mask = torch.ones(length, context + length, dtype=torch.bool, device=device).tril(diagonal=context)
    if window is not None and window < context + length:
        mask &= torch.ones_like(mask).triu(diagonal=context - window + 1)
    return mask


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function in the form that transformers calls; ``segments`` comes with the model's inputs."""
    if segments is None:
        if softcap is not None:
            attended = _attend(
                query, key, value, attention_mask, scaling=scaling, dropout=dropout, softcap=softcap
            )
            return attended.transpose(1, 2).contiguous(), None
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output
    if kwargs.get("s_aux") is not None or kwargs.get("position_bias") is not None:
        raise ValueError("packed segments know neither attention sinks nor position biases")
    if torch.is_autocast_enabled(query.device.type):
        # What autocast would do in each piece's attention, once for the row.
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    segments.windows.add(sliding_window)
    lengths = list(segments.lengths)
    # `split` has one backward for all pieces; slicing would fill a tensor of the row's size for each.
    keys, values = torch.split(key, lengths, dim=2), torch.split(value, lengths, dim=2)
    outputs = []
    how: dict[str, Any] = {"scaling": scaling, "dropout": dropout, "softcap": softcap}
    plain = softcap is None and dropout == 0.0
    for index, piece in enumerate(torch.split(query, lengths, dim=2)):
        links = segments.contexts[index]
        total = lengths[index] + sum(lengths[link] for link in links)
        windowed = sliding_window is not None and sliding_window < total
        is_long = lengths[index] * total > MOST_SHARED
        if links and is_long and plain and not windowed and takes_context(piece, values[index]):
            context = _joined(keys, links), _joined(values, links)
            outputs.append(context_attention(piece, *context, keys[index], values[index], scaling=scaling))
            continue
        own_keys = _joined(keys, (*links, index))
        own_values = _joined(values, (*links, index))
        if plain and is_short(piece, own_keys):
            hidden = segments.hidden(index, sliding_window, piece)
            outputs.append(short_attention(piece, own_keys, own_values, hidden, scaling=scaling))
        elif not links and not windowed and softcap is None:
            outputs.append(_attend(piece, own_keys, own_values, None, **how))
        elif softcap is None and not is_long:
            hidden = segments.hidden(index, sliding_window, piece)
            outputs.append(_attend(piece, own_keys, own_values, hidden, **how))
        else:
            outputs.append(_attend_in_blocks(piece, own_keys, own_values, sliding_window, **how))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _joined(pieces: Sequence[Tensor], places: Sequence[int]) -> Tensor:
    """Tokens of several segments, one after the other."""
    return pieces[places[0]] if len(places) == 1 else torch.cat([pieces[place] for place in places], dim=2)


def _attend_in_blocks(query: Tensor, key: Tensor, value: Tensor, window: int | None, **how: Any) -> Tensor:
    """As :func:`_attend` of the last tokens to all, by blocks of queries, so that no mask is quadratic."""
    length, total = query.shape[2], key.shape[2]
    size = max(1, MOST_MASKED // total)
    if query.device.type == "cpu":
        size = min(size, CPU_QUERIES)
    outputs = []
    for start in range(0, length, size):
        rows = query[:, :, start : start + size]
        end = total - length + start + rows.shape[2]
        begin = 0 if window is None else max(0, end - rows.shape[2] - window + 1)
        mask = visible(rows.shape[2], end - begin - rows.shape[2], window, query.device)
        outputs.append(_attend(rows, key[:, :, begin:end], value[:, :, begin:end], mask, **how))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
) -> Tensor:
    """Attention with fewer key heads than query heads; no mask means causal."""
    groups = query.shape[1] // key.shape[1]
    on_cpu = query.device.type == "cpu"
    if softcap is None and (groups == 1 or on_cpu or mask is None):
        return functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=dropout,
            scale=scaling,
            is_causal=mask is None,
            enable_gqa=groups > 1,
        )
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if softcap is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
        )
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        mask = visible(query.shape[2], key.shape[2] - query.shape[2], None, query.device)
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    statistics = torch.promote_types(weights.dtype, torch.float32)
    weights = weights.softmax(dim=-1, dtype=statistics).to(query.dtype)
    return functional.dropout(weights, p=dropout) @ value


AttentionInterface.register(IMPLEMENTATION, segment_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
