"""Per-token log-probabilities of a causal language model, differentiable, without a logits matrix."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stepcredit.errors import CheckpointError
from stepcredit.logprobs.packing import TokenBatch, pad
from stepcredit.logprobs.projection import LogitTransform, target_log_probs
from stepcredit.logprobs.segments import IMPLEMENTATION
from stepcredit.types import Encoded

_HEAD_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
_LOW_PRECISION_HEAD_TOLERANCE = 0.03
"""As shares of the spread of the log-probabilities."""
_ROWS_AT_ONCE = 64
"""Rows of logits over the whole vocabulary that exist at once where only some columns are wanted."""


def unwrapped(model: nn.Module) -> Any:
    """The transformers model inside wrappers (DDP, ``torch.compile``, PEFT, a head of our own)."""
    inner: Any = model
    while True:
        if hasattr(inner, "_orig_mod"):
            inner = inner._orig_mod
        elif hasattr(inner, "get_base_model"):
            inner = inner.get_base_model()
        elif not hasattr(inner, "get_output_embeddings") and hasattr(inner, "module"):
            inner = inner.module
        else:
            return inner


def causal_lm_of(model: nn.Module) -> Any:
    """The transformers causal language model inside wrappers.

    Raises:
        CheckpointError: There is none, or it has no output embedding.
    """
    inner = unwrapped(model)
    if not hasattr(inner, "get_output_embeddings") or inner.get_output_embeddings() is None:
        raise CheckpointError(
            f"{type(inner).__name__} has no output embedding, so it gives no token probabilities",
            hint="name a causal language model",
        )
    return inner


def input_device(model: nn.Module) -> torch.device:
    """Where a model takes its inputs, also where accelerate spreads it or keeps its weights elsewhere."""
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for part in getattr(hook, "hooks", (hook,)):
            device = getattr(part, "execution_device", None)
            if isinstance(device, int | str | torch.device):
                return torch.device(device)
    return next(model.parameters()).device


def logit_transform_of(config: Any) -> LogitTransform:
    """Scale and soft cap of the logits, from a transformers configuration."""
    text_config = config.get_text_config()
    scale = getattr(text_config, "logit_scale", None) or 1.0
    divisor = getattr(text_config, "logits_scaling", None) or 1.0
    return LogitTransform(
        scale=float(scale) / float(divisor),
        softcap=getattr(text_config, "final_logit_softcapping", None),
    )


def enable_log_probs(model: nn.Module) -> None:
    """Let ``model(..., scored=batch)`` return log-probabilities; other calls stay as they are.

    Call it before DDP, FSDP or accelerate wrap the model, so that their hooks see an ordinary forward.
    Calling it again changes nothing. A few tokens are run to see whether backbone, head and
    :class:`LogitTransform` give the model's own logits; a model that does something else to them is computed
    by its own forward, with whole logits.
    """
    causal_lm = causal_lm_of(model)
    if hasattr(causal_lm, "_stepcredit_head_is_known"):
        return
    # Kept on the model, not in a closure, so that a deep copy runs its own weights.
    causal_lm._stepcredit_ordinary_forward = causal_lm.forward

    @functools.wraps(causal_lm.forward)
    def forward(self: Any, *args: Any, scored: TokenBatch | None = None, **kwargs: Any) -> Any:
        ordinary = self._stepcredit_ordinary_forward
        if scored is None:
            return ordinary(*args, **kwargs)
        if self._stepcredit_head_is_known:
            return _projected_log_probs(self, scored, **kwargs)
        kwargs.pop("chunk_size")
        logits = ordinary(*args, **kwargs).logits.flatten(0, 1).index_select(0, scored.source_index)
        return _whole_log_probs(logits).gather(1, scored.targets[:, None])[:, 0]

    causal_lm._stepcredit_head_is_known = _head_is_known(causal_lm)
    causal_lm.forward = MethodType(forward, causal_lm)


def _whole_log_probs(logits: Tensor) -> Tensor:
    return _widened(logits).log_softmax(dim=-1)


def _projected_log_probs(
    causal_lm: Any, scored: TokenBatch, *, chunk_size: int | None = None, **inputs: Any
) -> Tensor:
    head = causal_lm.get_output_embeddings()
    rows = _states_at(causal_lm, scored.source_index, inputs)
    return target_log_probs(
        rows.to(head.weight.device),
        head.weight,
        scored.targets.to(head.weight.device),
        bias=getattr(head, "bias", None),
        transform=logit_transform_of(causal_lm.config),
        chunk_size=chunk_size,
    )


def _states_at(causal_lm: Any, positions: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    states = causal_lm.base_model(**inputs)[0].flatten(0, 1)
    # A model spread over devices ends on another one than it begins on.
    return cast(Tensor, states.index_select(0, positions.to(states.device)))


def logits_at(
    model: nn.Module, positions: Int[Tensor, " N"], *, tokens: Sequence[int] | None = None, **inputs: Any
) -> Float[Tensor, "N tokens"]:
    """The model's own logits at some places of a batch; its head runs there only, where it is known.

    Args:
        model: A transformers causal language model, possibly inside wrappers.
        positions: Places in the flattened batch.
        tokens: Ids whose logits are wanted; ``None`` is the whole vocabulary.
        inputs: What the model's forward takes.

    Returns:
        Float32, or float64 of a float64 model.
    """
    enable_log_probs(model)
    causal_lm = causal_lm_of(model)
    columns = slice(None) if tokens is None else list(tokens)
    if not causal_lm._stepcredit_head_is_known:
        logits = causal_lm(**inputs).logits.flatten(0, 1)
        return _widened(logits.index_select(0, positions.to(logits.device))[:, columns])
    head = causal_lm.get_output_embeddings()
    rows = _states_at(causal_lm, positions, inputs).split(_ROWS_AT_ONCE)
    logits = torch.cat([_widened(head(some)[:, columns]) for some in rows])
    return logit_transform_of(causal_lm.config).apply_(logits)


def _widened(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@torch.no_grad()
def _head_is_known(causal_lm: Any) -> bool:
    """Whether projecting the backbone's states gives the model's own log-probabilities."""
    head = causal_lm.get_output_embeddings()
    device = input_device(causal_lm)
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:
        return False
    if device.type == "meta":
        return True
    if head.weight.is_meta:  # accelerate brings the weight for the time of the head's own forward
        return False
    was_training = causal_lm.training
    causal_lm.eval()
    try:
        vocabulary = causal_lm.config.get_text_config().vocab_size
        item = Encoded(tuple((5 * position + 2) % vocabulary for position in range(8)), 1)
        batch = pad([item]).to(device)
        inputs: dict[str, Any] = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "use_cache": False,
        }
        whole = _whole_log_probs(causal_lm(**inputs).logits[0, :-1])
        if whole.isnan().any():
            raise CheckpointError(
                "gives log-probabilities that are not numbers",
                where=causal_lm.config.name_or_path or type(causal_lm).__name__,
                hint="check its weights, or load it with --dtype float32",
            )
        try:
            projected = _projected_log_probs(causal_lm, batch, **inputs)
        except (RuntimeError, AttributeError, TypeError, IndexError):
            # The head takes other states: Llama 4 is its own backbone, ELECTRA projects between them.
            return False
    finally:
        causal_lm.train(was_training)
    expected = whole.gather(1, batch.targets[:, None])[:, 0].to(projected)
    tolerance = _HEAD_TOLERANCE.get(head.weight.dtype, _LOW_PRECISION_HEAD_TOLERANCE)
    reachable = whole[whole.isfinite()]
    spread = (reachable.amax() - reachable.amin()).item()
    return bool(torch.allclose(projected, expected, rtol=0, atol=tolerance * spread))


def token_log_probs(
    model: nn.Module, batch: TokenBatch, *, chunk_size: int | None = None
) -> Float[Tensor, " scored"]:
    """Natural-log probability of every scored token of a batch.

    The backbone runs without the language-model head; the head runs at scored positions only, in chunks
    (:func:`~stepcredit.logprobs.projection.target_log_probs`). Differentiable in the model's parameters.

    Args:
        model: A transformers causal language model, possibly inside PEFT, DDP, FSDP or accelerate.
        batch: On the model's device.
        chunk_size: Positions projected at once; by default chosen by size. It changes no value.

    Returns:
        Log-probabilities in nats, float32, in the order of ``batch.targets``.
    """
    enable_log_probs(model)
    log_probs: Tensor = model(**forward_inputs(model, batch), scored=batch, chunk_size=chunk_size)
    return log_probs


def forward_inputs(model: nn.Module, batch: TokenBatch) -> dict[str, Any]:
    """What a model's forward is called with for a batch, padded or packed.

    Raises:
        ValueError: The batch is packed, and packing is not enabled for the model.
    """
    inputs: dict[str, Any] = {"attention_mask": batch.attention_mask}
    if batch.segments is not None:
        if unwrapped(model).config._attn_implementation != IMPLEMENTATION:
            raise ValueError("a packed batch needs enable_packing(model) first")
        # Masks of four dimensions are taken as they are; the segments say who attends to whom.
        inputs = {"attention_mask": batch.input_ids.new_zeros(1, 1, 1, 1), "segments": batch.segments}
    return {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "use_cache": False,
        **inputs,
    }


@torch.no_grad()
def inference_log_probs(model: nn.Module, batch: TokenBatch) -> Float[Tensor, " scored"]:
    """As :func:`token_log_probs`, in evaluation mode and without gradients; the mode is restored.

    Not under ``inference_mode``: buffers that a model renews on the way would then be unfit for training.
    """
    was_training = model.training
    model.eval()
    try:
        return token_log_probs(model, batch)
    finally:
        model.train(was_training)
