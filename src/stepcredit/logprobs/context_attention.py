"""Attention of a segment that continues others, on a CPU: to its context whole, to itself causally, no mask.

PyTorch's kernel skips nothing but what "causal" hides. With a mask it computes what is hidden too, and keeps
the mask, which is quadratic, for the backward pass. So it runs twice, and the softmax's normalisers join the
two results.

Shape legend: H query heads, G key heads, L tokens of the segment, C tokens of its context, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from stepcredit.keyvalues.shared_prompts import join_attention

_ATTEND = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ATTEND_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def takes_context(query: Tensor, value: Tensor) -> bool:
    """Whether :func:`context_attention` takes these."""
    return query.device.type == "cpu" and query.shape[-1] == value.shape[-1]


class _ContextAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        context_key: Tensor,
        context_value: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
    ) -> Tensor:
        own, own_normaliser = _ATTEND(query, key, value, 0.0, True, scale=scaling)
        past, past_normaliser = _ATTEND(query, context_key, context_value, 0.0, False, scale=scaling)
        joined, normaliser = join_attention(own, own_normaliser, past, past_normaliser)
        attended = joined.to(query.dtype)
        ctx.save_for_backward(query, context_key, context_value, key, value, attended, normaliser)
        ctx.scaling = scaling
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, context_key, context_value, key, value, attended, normaliser = ctx.saved_tensors

        def of(keys: Tensor, values: Tensor, *, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
            # With the joint result and normaliser each part gives its share of the joint gradient.
            inputs = (grads[0], query, keys, values, attended, normaliser)
            parts: tuple[Tensor, Tensor, Tensor] = _ATTEND_BACKWARD(*inputs, 0.0, causal, scale=ctx.scaling)
            return parts

        own_query, own_key, own_value = of(key, value, causal=True)
        past_query, past_key, past_value = of(context_key, context_value, causal=False)
        return own_query + past_query, past_key, past_value, own_key, own_value, None


def context_attention(
    query: Float[Tensor, "1 H L D"],
    context_key: Float[Tensor, "1 G C D"],
    context_value: Float[Tensor, "1 G C D"],
    key: Float[Tensor, "1 G L D"],
    value: Float[Tensor, "1 G L D"],
    *,
    scaling: float | None = None,
) -> Float[Tensor, "1 H L D"]:
    """Softmax attention of each query to the context and to the keys up to its own, differentiable once.

    Args:
        query: Its heads are a multiple of the key heads.
        context_key: Of what comes before the segment, at least one.
        key: Of the segment.
        scaling: Of the scores; default is one over the root of the width.
    """
    attended: Tensor = _ContextAttention.apply(  # type: ignore[no-untyped-call]
        query, context_key, context_value, key, value, scaling
    )
    return attended
