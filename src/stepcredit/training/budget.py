"""How many tokens a forward pass of training takes: the usual number, or a prompt's group, if it fits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stepcredit.logprobs import default_token_budget
from stepcredit.logprobs.forward import input_device, unwrapped
from stepcredit.training.batches import pass_sizes
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import TrainingSet
from stepcredit.types import Encoded

_LEAST = 256
"""Smaller passes would save nothing beside weights, gradients and moments."""
_MODEST = 2**30
"""Bytes that a CPU's passes may keep beside the smallest model."""
_SHARE = 0.7
"""Of the device's memory; the rest is for libraries, logits and what else runs."""
_STATE_BYTES = 12
"""Per trained parameter, beside the weight: its gradient and two moments in float32."""
_ON_THE_WAY_BACK = 1.5
"""Peak of a pass, over what its forward part keeps."""
_PROBED = 61
"""Tokens of the pass that is measured; a number that no width of a model has."""
_KEPT_OF_PRODUCTS, _KEPT_OF_INPUTS = 0.65, 0.1
"""What a pass keeps where the rest is computed again: all but what is cheap, or the layers' inputs alone."""
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def tokens_per_forward(policy: nn.Module, data: TrainingSet, config: TrainConfig, *, packed: bool) -> int:
    """Most tokens of a forward pass: as configured, else chosen; it changes no value beyond rounding.

    Chosen is the device's usual number; on a CPU, which larger passes do not make faster, fewer where they
    would keep more than half of what weights, gradients and moments take. With ``--group-prompts`` it is at
    least what the largest group of units takes together. It is never more than the device's whole memory has
    room for; so a run that is resumed on the same machine chooses the same.
    """
    if config.tokens_per_forward is not None:
        return config.tokens_per_forward
    per_token = _token_bytes(policy, config)
    wanted = _wanted(policy, data, config, per_token, packed=packed)
    return max(_LEAST, min(wanted, _room(policy, config) // per_token))


def is_short_of_memory(policy: nn.Module, data: TrainingSet, config: TrainConfig, *, packed: bool) -> bool:
    """Whether the device has no room for all that a pass of the wanted size keeps until it goes back.

    The arguments are those of :func:`tokens_per_forward`.
    """
    per_token = _token_bytes(policy, config)
    wanted = config.tokens_per_forward or _wanted(policy, data, config, per_token, packed=packed)
    return wanted * per_token > _room(policy, config)


def _wanted(
    policy: nn.Module, data: TrainingSet, config: TrainConfig, per_token: int, *, packed: bool
) -> int:
    """Tokens of a pass where memory sets no bound."""
    device = input_device(policy)
    wanted = default_token_budget(device.type)
    if device.type == "cpu":
        wanted = min(wanted, max(_MODEST, _states(policy, config) // 2) // per_token)
    if config.group_prompts:

        def sequences(unit: int) -> list[Encoded]:
            return [data.examples[row].encoded for row in data.units[unit]]

        wanted = max([wanted, *pass_sizes(data.groups(by_prompt=True), sequences, packed=packed)])
    return wanted


def _room(policy: nn.Module, config: TrainConfig) -> int:
    """Bytes that the device has for what passes keep."""
    return round(_SHARE * device_memory(input_device(policy))) - _states(policy, config)


def _states(policy: nn.Module, config: TrainConfig) -> int:
    """Bytes of weights, of what belongs to the trained ones, and of those that are cast for a step."""
    weights = list(policy.parameters())
    states = sum(weight.numel() * weight.element_size() for weight in weights)
    states += sum(_STATE_BYTES * weight.numel() for weight in weights if weight.requires_grad)
    if config.precision == "bfloat16":
        states += sum(2 * weight.numel() for weight in weights if weight.dtype == torch.float32)
    return states


def _token_bytes(policy: nn.Module, config: TrainConfig) -> int:
    """What a token takes at a pass's peak, measured on a short one."""
    network: Any = policy
    device = input_device(policy)
    vocabulary = network.config.get_text_config().vocab_size
    tokens = torch.arange(_PROBED, device=device)[None] % vocabulary
    weights = {weight.untyped_storage().data_ptr() for weight in policy.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    was_training = policy.training
    policy.eval()  # in which nothing is recomputed
    try:
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            network(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    finally:
        policy.train(was_training)
    share = 1.0
    if config.gradient_checkpointing:
        share = _KEPT_OF_INPUTS
    elif getattr(unwrapped(policy), "is_activation_checkpointing", False):
        share = _KEPT_OF_PRODUCTS
    # Weights that are cast for the pass are counted among the states.
    activations = [tensor for tensor in kept.values() if _PROBED in tensor.shape]
    num_bytes = sum(tensor.untyped_storage().nbytes() for tensor in activations)
    return max(1, round(_ON_THE_WAY_BACK * share * num_bytes / _PROBED))


def device_memory(device: torch.device) -> int:
    """Bytes that a device has, in use or not; of a CPU, as many as this process may use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if _CGROUP_LIMIT.is_file():
        limit = _CGROUP_LIMIT.read_text(encoding="ascii").strip()
        memory = min(memory, int(limit)) if limit.isdecimal() else memory
    return memory
