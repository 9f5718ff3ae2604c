"""The models of a run: the policy with its head or adapter, and the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import TrainingArguments

from stepcredit.checkpoints import LoadOptions, load_model, resolve, weights_hash
from stepcredit.errors import UserError
from stepcredit.logprobs import CachedTokenLogProbs, LocalTokenLogProbs, enable_log_probs, enable_packing
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
    has_head = config.family == "value-head"
    policy: Any = load_model(
        model, load, dtype=dtype, device=str(device), model_class=_OneClassModel if has_head else None
    )
    if config.lora_rank:
        policy = _with_adapter(policy, config)
    if not has_head:
        enable_log_probs(policy)
    return policy


class _OneClassModel:
    """A token classifier with one output, without dropout before it."""

    @staticmethod
    def from_pretrained(path: str, **arguments: Any) -> Any:
        """As transformers' own."""
        network: Any = transformers.AutoModelForTokenClassification.from_pretrained(
            path, num_labels=1, **arguments
        )
        network.config.classifier_dropout = 0.0
        if isinstance(getattr(network, "dropout", None), nn.Dropout):
            network.dropout.p = 0.0
        return network


def _with_adapter(policy: nn.Module, config: TrainConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = config.lora_targets.split(",")
    adapter = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        lora_dropout=config.lora_dropout,
        target_modules=targets[0] if targets == ["all-linear"] else targets,
        task_type="TOKEN_CLS" if config.family == "value-head" else "CAUSAL_LM",
    )
    try:
        return get_peft_model(policy, adapter)
    except ValueError as error:
        raise UserError(
            f"no adapter can be put there ({error})",
            where="--lora-targets",
            mend="name modules of this model",
        ) from error


def token_budget(config: TrainConfig, device: torch.device) -> int:
    """Most tokens of one forward pass."""
    return config.tokens_per_forward or default_tokens_per_forward(device.type)


def packs(policy: nn.Module, data: TrainingSet, config: TrainConfig) -> bool:
    """Packing calls attention once a sequence, which pays where sequences are long."""
    if config.family != "implicit" or config.layout == "padded":
        return False
    tokens = sum(len(example.encoded.token_ids) for example in data.examples)
    if config.layout == "auto" and tokens < _PACKED_FROM * len(data.examples):
        return False
    possible = enable_packing(policy)
    if config.layout == "packed" and not possible:
        raise UserError(
            "this model's attention cannot run packed sequences", where="--layout", mend="use padded"
        )
    return possible


def _reference_source(
    policy: nn.Module,
    model: str | Path,
    reference: str | Path | None,
    config: TrainConfig,
    load: LoadOptions,
    device: torch.device,
) -> TokenLogProbs:
    """The reference: the policy before training, its base without the adapter, or another model."""
    name = reference or model
    network: nn.Module = policy
    adapter_off = bool(config.lora_rank) and reference is None
    if reference is not None or (config.live_reference and not adapter_off):
        network = load_model(name, load, dtype="float32", device=str(device))
    source = LocalTokenLogProbs(
        network,
        weights_hash=weights_hash(resolve(name, revision=load.revision)),
        token_budget=token_budget(config, device),
        adapter_off=adapter_off,
    )
    return AutocastLogProbs(source, device.type, torch.bfloat16 if config.precision == "bfloat16" else None)


def reference_log_probs(
    policy: nn.Module,
    sequences: Sequence[Encoded],
    *,
    model: str | Path,
    reference: str | Path | None,
    config: TrainConfig,
    load: LoadOptions,
    cache: str | Path | None,
    arguments: TrainingArguments,
) -> ReferenceLogProbs:
    """Reference log-probabilities of everything that training will ask for.

    Args:
        policy: The policy before training, already on its device.
        sequences: What will be asked for.
        model: Where the policy came from.
        reference: Another reference than the policy before training.
        config: Decides precision, and whether they are computed once or in each step.
        load: How another reference is loaded.
        cache: Directory of a cache.
        arguments: Name the processes among which the work is divided.
    """
    source = _reference_source(policy, model, reference, config, load, arguments.device)
    if cache is not None:
        source = CachedTokenLogProbs(source, cache)
    if config.live_reference:
        return LiveReference(source)
    return StoredReference(
        source, sequences, process=arguments.process_index, num_processes=arguments.world_size
    )
