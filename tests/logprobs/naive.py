"""The obvious way to the same numbers: whole logits, float64, one sequence at a time. An oracle."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stepcredit.types import Encoded


def naive_target_log_probs(
    logits: Float[Tensor, "tokens vocabulary"], targets: Int[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """Log-softmax of whole logits in float64, gathered at the targets, in nats."""
    return logits.double().log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]


def naive_token_log_probs(model: nn.Module, encoded: Sequence[Encoded]) -> list[Float[Tensor, " scored"]]:
    """Each sequence alone through the model's own forward; differentiable.

    Args:
        model: A causal language model; its dtype is used as it is (see :func:`in_float64`).
        encoded: The sequences.

    Returns:
        One float64 tensor of log-probabilities (nats) a sequence.
    """
    result = []
    for item in encoded:
        token_ids = torch.tensor([item.token_ids], device=next(model.parameters()).device)
        logits = model(input_ids=token_ids, use_cache=False).logits[0, item.scored_start - 1 : -1]
        result.append(naive_target_log_probs(logits, token_ids[0, item.scored_start :]))
    return result


def in_float64(model: nn.Module) -> nn.Module:
    """A float64 copy of a model."""
    return copy.deepcopy(model).double()
