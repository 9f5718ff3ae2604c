"""What is cheap beside matrix products is computed again in the backward pass, not kept until then."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from stepcredit.logprobs import pack
from stepcredit.logprobs.forward import forward_inputs, input_device, unwrapped
from stepcredit.training.budget import is_short_of_memory
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import TrainingSet
from stepcredit.types import Encoded

_KEPT = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
)
"""What is not cheap."""


def recompute_if_short_of_memory(
    policy: nn.Module, data: TrainingSet, config: TrainConfig, *, packed: bool
) -> bool:
    """:func:`recompute_cheap`, on a CPU without room for all that a pass keeps.

    The arguments are those of :func:`~stepcredit.training.budget.tokens_per_forward`, which takes the
    answer into account.

    Returns:
        Whether it is done.
    """
    possible = packed and input_device(policy).type == "cpu" and not config.gradient_checkpointing
    return possible and is_short_of_memory(policy, data, config, packed=packed) and recompute_cheap(policy)


def recompute_cheap(policy: nn.Module) -> bool:
    """Keep of each layer its input, products and attention; norms and activations are computed again.

    A pass then keeps two thirds as much, and no gradient changes. It takes a twentieth more time with 135
    million parameters and a quarter more with the lab's. A few tokens are run to see that no gradient
    changes; a model of which one does, or which cannot do it, stays as it is.

    Args:
        policy: A language model or classifier for which :func:`~stepcredit.logprobs.enable_packing` holds.

    Returns:
        Whether it is done.
    """
    network = unwrapped(policy)
    trained: list[Any] = [weight for weight in network.base_model.parameters() if weight.requires_grad]
    if not trained or not network.supports_gradient_checkpointing:
        return False
    smallest = min(trained, key=lambda weight: weight.numel())
    expected = _gradient(policy, smallest)
    keep = partial(create_selective_checkpoint_contexts, list(_KEPT))
    network.activation_checkpointing_enable({"use_reentrant": False, "context_fn": keep})
    try:
        works = torch.equal(_gradient(policy, smallest), expected)
    except RuntimeError:
        works = False
    if not works:
        network.activation_checkpointing_disable()
    return works


def _gradient(policy: nn.Module, weight: Tensor) -> Tensor:
    """Of a weight of the backbone, through the layers after it, on two short sequences."""
    vocabulary = unwrapped(policy).config.get_text_config().vocab_size
    tokens = tuple((7 * position + 3) % vocabulary for position in range(48))
    batch = pack([Encoded(tokens[:32], 20), Encoded(tokens[:20] + tokens[32:], 20)])
    was_training = policy.training
    policy.train()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same dropout
            # Heads add what packed rows have no room for, as the load of a mixture's experts.
            inputs = forward_inputs(policy, batch.to(input_device(policy)))
            states: Tensor = unwrapped(policy).base_model(**inputs)[0]
            # A plain sum, or one of squares, is the same whatever a last norm is given.
            gradient: Tensor = torch.autograd.grad(states.logsumexp(dim=-1).sum(), weight)[0]
    finally:
        policy.train(was_training)
    return gradient
