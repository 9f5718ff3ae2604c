"""Attention of rows that continue common prompts, whose keys and values are held once.

Rows hold the keys and values of what was drawn only. All rows that continue a prompt attend to it by one
product per key head, and to their own tokens each for itself; the softmax's normalisers join the two. The
attention is registered with transformers as :data:`IMPLEMENTATION`.

Shape legend: B rows, N rows that continue one prompt, H query heads, G key heads, P tokens of a prompt,
C columns of the rows' own tokens, D head width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from stepcredit.keyvalues.rows import States

IMPLEMENTATION = "stepcredit_shared_prompts"

_UNKNOWN = ("softcap", "s_aux", "position_bias", "sliding_window")
_ATTEND = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True, slots=True)
class SharedPrompt:
    """A prompt that several rows continue.

    Attributes:
        states: Its keys and values in each layer.
    """

    states: States
    rows: Int64[Tensor, " N"]

    @property
    def length(self) -> int:
        """Its tokens."""
        return self.states[0][0].shape[1]


def shared_prompt_attention(
    module: nn.Module,
    query: Float[Tensor, "B H 1 D"],
    key: Float[Tensor, "B G C D"],
    value: Float[Tensor, "B G C D"],
    attention_mask: Bool[Tensor, "B 1 1 C"] | None,
    scaling: float | None = None,
    shared_prompts: Sequence[SharedPrompt] = (),
    **settings: Any,
) -> tuple[Float[Tensor, "B 1 H D"], None]:
    """Attention in the form that transformers calls; ``shared_prompts`` comes with the model's inputs.

    Args:
        module: Knows which layer it is.
        query: Of one new token per row.
        key: Of the row's own tokens, the new one included.
        attention_mask: True where a column holds a token of the row's; ``None`` if all do.
        scaling: Of the scores; default is one over the root of the width.
        shared_prompts: What comes before the rows' own tokens; of a row in none of them, nothing does.

    Raises:
        ValueError: The settings change attention in a way that is not known here.
    """
    if unknown := [name for name in _UNKNOWN if settings.get(name) is not None]:
        raise ValueError(f"shared prompts know no {unknown[0]}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mask = None
    if attention_mask is not None:
        mask = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill_(
            ~attention_mask, float("-inf")
        )
    own, own_normaliser = _ATTEND(query, key, value, 0.0, False, attn_mask=mask, scale=scale)
    prompt = torch.zeros_like(query, dtype=own_normaliser.dtype)
    prompt_normaliser = torch.full_like(own_normaliser, float("-inf"))
    for shared in shared_prompts:
        keys, values = shared.states[module.layer_idx]  # type: ignore[index]
        attended, normaliser = _to_prompt(query[shared.rows, :, 0], keys, values, scale)
        prompt[shared.rows, :, 0] = attended
        prompt_normaliser[shared.rows, :, 0] = normaliser
    joined, _ = join_attention(own, own_normaliser, prompt, prompt_normaliser)
    return joined.to(query.dtype).transpose(1, 2).contiguous(), None


def join_attention(
    first: Float[Tensor, "B H L D"],
    first_normaliser: Float[Tensor, "B H L"],
    second: Float[Tensor, "B H L D"],
    second_normaliser: Float[Tensor, "B H L"],
) -> tuple[Float[Tensor, "B H L D"], Float[Tensor, "B H L"]]:
    """Attention to two sets of keys, from that to each and the logarithm of its softmax's denominator."""
    normaliser = torch.logaddexp(first_normaliser, second_normaliser)
    first_share, second_share = (
        (part - normaliser).exp_()[..., None] for part in (first_normaliser, second_normaliser)
    )
    return (first * first_share).addcmul_(second, second_share), normaliser


def _to_prompt(
    query: Float[Tensor, "N H D"], key: Float[Tensor, "G P D"], value: Float[Tensor, "G P D"], scale: float
) -> tuple[Float[Tensor, "N H D"], Float[Tensor, "N H"]]:
    """Attention to a whole prompt and the softmax's normaliser, in float32 at least."""
    rows, heads, width = query.shape
    groups = len(key)
    by_key_head = query.view(rows, groups, -1, width).transpose(0, 1).reshape(groups, -1, width)
    scores = torch.bmm(by_key_head, key.transpose(1, 2))
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).mul_(scale)
    normaliser = scores.logsumexp(dim=-1)
    weights = scores.sub_(normaliser[..., None]).exp_()
    attended = torch.bmm(weights.to(value.dtype), value).to(weights.dtype)
    return (
        attended.view(groups, rows, -1, width).transpose(0, 1).reshape(rows, heads, width),
        normaliser.view(groups, rows, -1).transpose(0, 1).reshape(rows, heads),
    )


@contextlib.contextmanager
def sharing(model: Any, prompts: Sequence[SharedPrompt]) -> Iterator[dict[str, Any]]:
    """Let a model attend to prompts before its rows inside the ``with``; yields inputs for its call."""
    if not prompts:
        yield {}
        return
    config = model.config.get_text_config(decoder=True)
    usual = config._attn_implementation
    config._attn_implementation = IMPLEMENTATION
    try:
        yield {"shared_prompts": prompts}
    finally:
        config._attn_implementation = usual


AttentionInterface.register(IMPLEMENTATION, shared_prompt_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
