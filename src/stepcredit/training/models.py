"""The models of a run: the policy with its head or adapter, and the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import TrainingArguments

from stepcredit.checkpoints import LoadOptions, content_hash, load_model, quiet, resolve
from stepcredit.errors import UserError
from stepcredit.logprobs import CachedTokenLogProbs, LocalTokenLogProbs, enable_log_probs, enable_packing
from stepcredit.scorers.kinds import get_kind
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import TrainingSet
from stepcredit.training.preparation import default_tokens_per_forward
from stepcredit.training.reference import AutocastLogProbs, LiveReference, StoredReference
from stepcredit.training.step_batches import ReferenceLogProbs
from stepcredit.types import Encoded, TokenLogProbs

_PACKED_FROM = 128
"""Mean tokens of a sequence from which packing gains more than it costs."""


def load_policy(model: str | Path, config: TrainConfig, load: LoadOptions, device: torch.device) -> Any:
    """The network to train, with its head or adapter, in float32 (a LoRA base in the forward precision)."""
    dtype = config.precision if config.lora_rank else "float32"
    num_classes = get_kind(config.family).num_classes
    head = None if num_classes is None else _WithHead(num_classes)
    policy: Any = load_model(model, load, dtype=dtype, device=str(device), model_class=head)
    if is_adapter(policy):
        policy = _adapter_again(policy, config)
    elif config.lora_rank:
        policy = _with_adapter(policy, config)
        # A hub model was loaded from the cache's directory, which is nowhere else.
        policy.peft_config["default"].base_model_name_or_path = str(model)
    if head is None:
        enable_log_probs(policy)
    return policy


class _WithHead:
    """A token classifier without dropout before its head.

    Args:
        num_classes: Its outputs.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def from_pretrained(self, path: str, **arguments: Any) -> Any:
        """As transformers' own."""
        network: Any = transformers.AutoModelForTokenClassification.from_pretrained(
            path, **{**arguments, "num_labels": self.num_classes}
        )
        network.config.classifier_dropout = 0.0
        if isinstance(getattr(network, "dropout", None), nn.Dropout):
            network.dropout.p = 0.0
        return network


def _with_adapter(policy: nn.Module, config: TrainConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = config.lora_targets.split(",")
    has_head = get_kind(config.family).num_classes is not None
    adapter = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        lora_dropout=config.lora_dropout,
        target_modules=targets[0] if targets == ["all-linear"] else targets,
        # A head is new, so it is trained whole and saved with the adapter.
        exclude_modules=["score", "classifier"] if has_head else None,
        task_type="TOKEN_CLS" if has_head else "CAUSAL_LM",
    )
    try:
        with quiet():
            return get_peft_model(policy, adapter)
    except ValueError as error:
        raise UserError(
            f"no adapter can be put there ({error})",
            where="--lora-targets",
            hint="name modules of this model",
        ) from error


def is_adapter(policy: Any) -> bool:
    """Whether the initial weights are a base with an adapter."""
    return hasattr(policy, "peft_config")


def _adapter_again(policy: Any, config: TrainConfig) -> Any:
    """An adapter that is trained further, or its base with the adapter merged in to train all weights."""
    if not config.lora_rank:
        return policy.merge_and_unload().requires_grad_(True)  # peft froze the base
    rank = policy.peft_config["default"].r
    if rank != config.lora_rank:
        raise UserError(
            f"the adapter that training starts from has rank {rank}, not {config.lora_rank}",
            where="--lora-rank",
            hint=f"use {rank}, or 0 to merge it and train all weights",
        )
    policy.set_adapter("default")  # which makes it trainable
    return policy


def token_budget(config: TrainConfig, device: torch.device) -> int:
    """Most tokens of one forward pass."""
    return config.tokens_per_forward or default_tokens_per_forward(device.type)


def packs(policy: nn.Module, data: TrainingSet, config: TrainConfig) -> bool:
    """Packing calls attention once a sequence, which pays where sequences are long."""
    if config.learns != "ratios" or config.layout == "padded":
        return False
    tokens = sum(len(example.encoded.token_ids) for example in data.examples)
    if config.layout == "auto" and tokens < _PACKED_FROM * len(data.examples):
        return False
    possible = enable_packing(policy)
    if config.layout == "packed" and not possible:
        raise UserError(
            "this model's attention cannot run packed sequences", where="--layout", hint="use padded"
        )
    return possible


def has_own_network(config: TrainConfig, reference: str | Path | None, *, sharded: bool) -> bool:
    """Whether the reference is a network of its own, not the policy before training.

    Args:
        config: Settings of the run.
        reference: Another model than the initial weights.
        sharded: The policy's weights are cast as they are gathered rather than by autocast, so only a
            network in that format rounds as the policy does.
    """
    if reference is not None:
        return True
    if config.lora_rank:
        return False
    return config.live_reference or (sharded and config.precision == "bfloat16")


def _reference_source(
    policy: nn.Module | None,
    model: str | Path,
    reference: str | Path | None,
    config: TrainConfig,
    load: LoadOptions,
    device: torch.device,
    *,
    sharded: bool,
) -> TokenLogProbs:
    """The reference: the policy before training, its base without the adapter, or another model."""
    name = reference or model
    load = load if reference is None else replace(load, revision=None)
    in_bfloat16 = config.precision == "bfloat16"
    if policy is None:
        # The format in which the policy computes; autocast would round other weights otherwise.
        dtype = "bfloat16" if in_bfloat16 and (sharded or config.lora_rank) else "float32"
        policy = load_model(name, load, dtype=dtype, device=str(device))
    adapter_off = bool(config.lora_rank) and reference is None
    path = resolve(name, revision=load.revision, also=load.unsafe_patterns)
    source = LocalTokenLogProbs(
        policy,
        weights_hash=content_hash(path, also=load.unsafe_patterns, adapter_off=adapter_off),
        token_budget=token_budget(config, device),
        adapter_off=adapter_off,
    )
    return AutocastLogProbs(source, device.type, torch.bfloat16 if in_bfloat16 and not sharded else None)


def reference_log_probs(
    policy: nn.Module | None,
    sequences: Sequence[Encoded],
    *,
    model: str | Path,
    reference: str | Path | None,
    config: TrainConfig,
    load: LoadOptions,
    cache: str | Path | None,
    arguments: TrainingArguments,
    sharded: bool = False,
) -> ReferenceLogProbs:
    """Reference log-probabilities of everything that training will ask for.

    Args:
        policy: The policy before training, already on its device; ``None`` loads a network for the
            reference (:func:`has_own_network`).
        sequences: What will be asked for.
        model: Where the policy came from.
        reference: Another reference than the policy before training.
        config: Decides precision, and whether they are computed once or in each step.
        load: How another reference is loaded.
        cache: Directory of a cache.
        arguments: Name the processes among which the work is divided.
        sharded: See :func:`has_own_network`.
    """
    source = _reference_source(policy, model, reference, config, load, arguments.device, sharded=sharded)
    if cache is not None:
        source = CachedTokenLogProbs(source, cache)
    if config.live_reference:
        return LiveReference(source)
    return StoredReference(
        source, sequences, process=arguments.process_index, num_processes=arguments.world_size
    )
