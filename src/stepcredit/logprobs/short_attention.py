"""Attention of short segments in bfloat16 on a CPU, by whole matrix products.

PyTorch's blockwise kernel for CPUs pays off where the scores would not fit the cache; below that, plain
products are about twice as fast, most of all backwards. Only query, key and value are kept for the
backward pass, which computes the attention weights again.

Shape legend: G key heads, R query heads a key head, L queries, S keys, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST_SCORES = 2**20
"""Scores (query heads x queries x keys) up to which whole products are the faster way."""


def is_short(query: Tensor, key: Tensor) -> bool:
    """Whether :func:`short_attention` takes these, and faster than PyTorch's kernel."""
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and query.shape[0] == 1
        and query.shape[1] * query.shape[2] * key.shape[2] <= MOST_SCORES
    )


class _ShortAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, scaling: float
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, hidden)
        ctx.scaling = scaling
        weights = _weights(query, key, hidden, scaling)
        return torch.bmm(weights, value[0]).view(query.shape[:-1] + value.shape[-1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, hidden = ctx.saved_tensors
        weights = _weights(query, key, hidden, ctx.scaling)
        grad = _by_key_head(grads[0], key.shape[1])
        grad_value = torch.bmm(weights.transpose(1, 2), grad)
        grad_weights = torch.bmm(grad, value[0].transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        grad_query = torch.bmm(grad_scores, key[0]).mul_(ctx.scaling).view(query.shape)
        grad_key = torch.bmm(grad_scores.transpose(1, 2), _by_key_head(query, key.shape[1]))
        return grad_query, grad_key.mul_(ctx.scaling)[None], grad_value[None], None, None


def _by_key_head(heads: Tensor, num_key_heads: int) -> Tensor:
    """(1, G x R, L, D) to (G, R x L, D): the query heads of one key head below each other."""
    return heads.reshape(num_key_heads, -1, heads.shape[-1])


def _weights(query: Tensor, key: Tensor, hidden: Tensor, scaling: float) -> Tensor:
    """Attention weights, (G, R x L, S); the softmax runs in float32 inside."""
    scores = torch.bmm(_by_key_head(query, key.shape[1]), key[0].transpose(1, 2))
    by_head = scores.view(query.shape[1], *hidden.shape)
    torch.add(hidden, by_head, alpha=scaling, out=by_head)
    return scores.softmax(dim=-1)


def short_attention(
    query: Float[Tensor, "1 heads queries width"],
    key: Float[Tensor, "1 key_heads keys width"],
    value: Float[Tensor, "1 key_heads keys width"],
    hidden: Float[Tensor, "queries keys"],
    *,
    scaling: float | None = None,
) -> Float[Tensor, "1 heads queries width"]:
    """``softmax(scaling * query @ key.T + hidden) @ value``, differentiable once.

    Args:
        query: Its heads are a multiple of the key heads.
        key: As many as there are values.
        hidden: Minus infinity at the keys that a query does not attend to, 0 at others, at least one.
        scaling: Of the scores; default is one over the root of the width.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    attended: Tensor = _ShortAttention.apply(query, key, value, hidden, scaling)  # type: ignore[no-untyped-call]
    return attended
