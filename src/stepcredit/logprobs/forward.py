"""Per-token log-probabilities of a causal language model, differentiable, without a logits matrix."""

from __future__ import annotations

import functools
from types import MethodType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stepcredit.errors import CheckpointError
from stepcredit.logprobs.packing import TokenBatch
from stepcredit.logprobs.projection import LogitTransform, target_log_probs


def causal_lm_of(model: nn.Module) -> Any:
    """The transformers causal language model inside wrappers (DDP, ``torch.compile``, PEFT).

    Raises:
        CheckpointError: There is none, or it has no output embedding.
    """
    inner: Any = model
    while True:
        if hasattr(inner, "_orig_mod"):
            inner = inner._orig_mod
        elif hasattr(inner, "get_base_model"):
            inner = inner.get_base_model()
        elif not hasattr(inner, "get_output_embeddings") and hasattr(inner, "module"):
            inner = inner.module
        else:
            break
    if not hasattr(inner, "get_output_embeddings") or inner.get_output_embeddings() is None:
        raise CheckpointError(
            f"{type(inner).__name__} has no output embedding, so it gives no token probabilities",
            mend="name a causal language model",
        )
    return inner


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
    Calling it again changes nothing.
    """
    causal_lm = causal_lm_of(model)
    if getattr(causal_lm, "_stepcredit_log_probs", False):
        return
    ordinary = causal_lm.forward

    @functools.wraps(ordinary)
    def forward(self: Any, *args: Any, scored: TokenBatch | None = None, **kwargs: Any) -> Any:
        if scored is None:
            return ordinary(*args, **kwargs)
        return _log_prob_forward(self, scored, **kwargs)

    causal_lm.forward = MethodType(forward, causal_lm)
    causal_lm._stepcredit_log_probs = True


def _log_prob_forward(
    causal_lm: Any, scored: TokenBatch, *, chunk_size: int | None = None, **inputs: Any
) -> Tensor:
    hidden = causal_lm.base_model(**inputs).last_hidden_state
    rows = hidden.flatten(0, 1).index_select(0, scored.source_index)
    head = causal_lm.get_output_embeddings()
    return target_log_probs(
        rows,
        head.weight,
        scored.targets,
        bias=head.bias,
        transform=logit_transform_of(causal_lm.config),
        chunk_size=chunk_size,
    )


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
    log_probs: Tensor = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        scored=batch,
        chunk_size=chunk_size,
    )
    return log_probs


@torch.inference_mode()
def inference_log_probs(model: nn.Module, batch: TokenBatch) -> Float[Tensor, " scored"]:
    """As :func:`token_log_probs`, in evaluation mode and without gradients; the mode is restored."""
    was_training = model.training
    model.eval()
    try:
        return token_log_probs(model, batch)
    finally:
        model.train(was_training)
