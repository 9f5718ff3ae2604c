"""Log-probabilities of target tokens from hidden states, without the (tokens x vocabulary) matrix.

The vocabulary projection, the soft cap and the log-softmax run tile by tile, forward and backward. Only one
tile of the logits exists at a time, except that few logits are kept for the backward pass. Shape legend: N
scored positions, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor, Partial, Replicate

LOGIT_TILE_BYTES = {"cpu": 8 * 2**20}
"""Size of one tile of float32 logits where no chunk size is given: it stays in a large CPU cache."""
_ACCELERATOR_TILE_BYTES = 512 * 2**20
"""Products of an accelerator must be large, and its memory is not a cache."""
MOST_KEPT_LOGITS = 2**26
"""Up to so many logits (256 MiB) the backward pass finds them where it would compute them again."""


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """What a model does to its logits before the softmax: ``cap * tanh(scale * logit / cap)``.

    Attributes:
        scale: Factor on the logits (Cohere's ``logit_scale``, the inverse of Granite's ``logits_scaling``).
        softcap: Bound of the soft cap (Gemma's ``final_logit_softcapping``); ``None`` is off.
    """

    scale: float = 1.0
    softcap: float | None = None

    def apply_(self, logits: Tensor) -> Tensor:
        """Transform ``logits`` in place."""
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def backward_(self, grad: Tensor, transformed: Tensor) -> Tensor:
        """Turn the gradient of the transformed logits into that of the raw ones, in place."""
        if self.softcap is not None:
            grad.mul_(1.0 - (transformed / self.softcap).square_())
        if self.scale != 1.0:
            grad.mul_(self.scale)
        return grad


IDENTITY = LogitTransform()


def default_chunk_size(vocabulary: int, device_type: str = "cpu") -> int:
    """Rows whose float32 logits take about the size of a tile on such a device, at least 1."""
    return max(1, LOGIT_TILE_BYTES.get(device_type, _ACCELERATOR_TILE_BYTES) // (4 * vocabulary))


class _TargetLogProbs(torch.autograd.Function):
    """Forward and backward over tiles of the vocabulary, each with all rows.

    So the weight is read and cast once, its products are large, and each part of its gradient is one
    product, rounded once and never added to. Between the two the inputs and one log-sum-exp per row are
    kept, and the logits where that is asked for.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        transform: LogitTransform,
        chunk_size: int,
        compute_dtype: torch.dtype,
        keeps_logits: bool,
    ) -> Tensor:
        cast_hidden = hidden.detach().to(compute_dtype)
        statistics = _statistics_dtype(compute_dtype)
        log_normalisers = hidden.new_full((hidden.shape[0],), float("-inf"), dtype=statistics)
        picked = torch.zeros_like(log_normalisers)
        kept = []
        for tile in _tiles(hidden.shape[0], weight.shape[0], chunk_size):
            tile_weight = weight[tile].detach().to(compute_dtype)
            logits = _logits(cast_hidden, tile_weight, None if bias is None else bias[tile], transform)
            inside, columns = _targets_inside(targets - tile.start, logits.shape[1])
            picked[inside] = logits[inside, columns]
            # Twice as fast on CPU as logsumexp, which also slows down where exponentials are denormal.
            largest = logits.amax(dim=1)
            log_softmax = torch.log_softmax(logits, dim=1, out=None if keeps_logits else logits)
            normalisers = largest - log_softmax.amax(dim=1)
            # A tile in which no token has any probability has no softmax.
            normalisers = torch.where(largest.isneginf(), largest, normalisers)
            log_normalisers = torch.logaddexp(log_normalisers, normalisers)
            if keeps_logits:
                kept.append(logits)
        ctx.save_for_backward(hidden, weight, bias, targets, log_normalisers, *kept)
        ctx.transform, ctx.chunk_size, ctx.compute_dtype = transform, chunk_size, compute_dtype
        return picked - log_normalisers

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, log_normalisers, *kept = ctx.saved_tensors
        incoming = grads[0].to(log_normalisers.dtype)
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        cast_hidden = hidden.detach().to(ctx.compute_dtype)
        grad_hidden = torch.zeros_like(hidden, dtype=log_normalisers.dtype) if wants_hidden else None
        # Every tile is written whole; without rows there is no tile.
        fresh = torch.empty_like if hidden.shape[0] > 0 else torch.zeros_like
        grad_weight = fresh(weight) if wants_weight else None
        grad_bias = fresh(bias) if wants_bias else None
        for number, tile in enumerate(_tiles(hidden.shape[0], weight.shape[0], ctx.chunk_size)):
            tile_weight = weight[tile].detach().to(ctx.compute_dtype)
            tile_bias = None if bias is None else bias[tile]
            logits = kept[number] if kept else _logits(cast_hidden, tile_weight, tile_bias, ctx.transform)
            grad_logits = _logits_gradient(logits, log_normalisers, targets - tile.start, incoming)
            ctx.transform.backward_(grad_logits, logits)
            if grad_bias is not None:
                grad_bias[tile] = grad_logits.sum(dim=0)
            cast_grad = grad_logits.to(ctx.compute_dtype)
            if grad_hidden is not None:
                grad_hidden += cast_grad @ tile_weight
            if grad_weight is not None:
                grad_weight[tile] = cast_grad.T @ cast_hidden
        if grad_hidden is not None:
            grad_hidden = grad_hidden.to(hidden.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None


def _logits_gradient(
    logits: Tensor, log_normalisers: Tensor, tile_targets: Tensor, incoming: Tensor
) -> Tensor:
    """``incoming * (onehot(target) - softmax)`` within a tile; targets count from the tile's start."""
    grad = torch.sub(logits, log_normalisers[:, None]).exp_().mul_(-incoming[:, None])
    inside, columns = _targets_inside(tile_targets, logits.shape[1])
    grad.index_put_((inside, columns), incoming[inside], accumulate=True)
    return grad


def _tiles(rows: int, vocabulary: int, chunk_size: int) -> Iterator[slice]:
    """Parts of the vocabulary; a tile has about as many logits as ``chunk_size`` whole rows."""
    size = max(1, chunk_size * vocabulary // max(1, rows))
    for start in range(0, vocabulary if rows > 0 else 0, size):
        yield slice(start, min(start + size, vocabulary))


def _targets_inside(tile_targets: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Rows whose target lies in a tile, and its column there; targets count from the tile's start."""
    (inside,) = torch.where((tile_targets >= 0) & (tile_targets < width))
    return inside, tile_targets[inside]


def _statistics_dtype(compute_dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if compute_dtype == torch.float64 else torch.float32


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, transform: LogitTransform) -> Tensor:
    logits = (hidden @ weight.T).to(_statistics_dtype(hidden.dtype))
    if bias is not None:
        logits += bias.detach().to(logits.dtype)
    return transform.apply_(logits)


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype that a linear layer would run in here: autocast's where it is on."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def _gathered(parameter: Tensor) -> Tensor:
    """The whole of a sharded parameter; its gradient is averaged over the ranks, as FSDP's are."""
    if not isinstance(parameter, DTensor):
        return parameter
    mesh = parameter.device_mesh
    whole = parameter.redistribute(placements=[Replicate()] * mesh.ndim)
    local = whole.to_local(grad_placements=[Partial()] * mesh.ndim)
    if local.requires_grad:
        # Not Partial("avg"): gloo cannot average.
        local.register_hook(lambda grad: grad / mesh.size())
    return local


def target_log_probs(
    hidden: Float[Tensor, "scored width"],
    weight: Float[Tensor, "vocabulary width"],
    targets: Int[Tensor, " scored"],
    *,
    bias: Float[Tensor, " vocabulary"] | None = None,
    transform: LogitTransform = IDENTITY,
    chunk_size: int | None = None,
) -> Float[Tensor, " scored"]:
    """Natural-log probability of each target under ``softmax(transform(hidden @ weight.T + bias))``.

    Differentiable once in ``hidden``, ``weight`` and ``bias``. Products run in the dtype of ``hidden``
    (autocast's where it is on), everything after them in float32 (float64 for float64 input). The weight
    may be a sharded ``DTensor`` whose ranks hold different rows of data.

    Args:
        hidden: Final hidden states at the positions that predict the targets.
        weight: Output embedding.
        targets: Token ids in ``[0, vocabulary)``.
        transform: Scale and soft cap of the logits.
        chunk_size: How many logits exist at once, as a number of whole rows, at least 1; by default by the
            device (:func:`default_chunk_size`). It changes memory and speed, not values. Up to
            :data:`MOST_KEPT_LOGITS` of them are kept for the backward pass all the same.

    Returns:
        Log-probabilities in nats, float32 (float64 for float64 input).
    """
    if chunk_size is None:
        chunk_size = default_chunk_size(weight.shape[0], hidden.device.type)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    learns = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    log_probs: Tensor = _TargetLogProbs.apply(  # type: ignore[no-untyped-call]
        hidden,
        _gathered(weight),
        None if bias is None else _gathered(bias),
        targets,
        transform,
        chunk_size,
        _compute_dtype(hidden),
        learns and len(hidden) * len(weight) <= MOST_KEPT_LOGITS,
    )
    return log_probs
