"""The network to train: with its head or adapter, whole or further from an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from stepcredit.checkpoints import LoadOptions, load_model, quiet
from stepcredit.errors import UserError
from stepcredit.logprobs import enable_log_probs, enable_packing
from stepcredit.scorers.kinds import get_kind
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import TrainingSet

_PACKED_FROM = 128
"""Mean tokens of a sequence from which packing gains more than it costs."""


def load_policy(model: str | Path, config: TrainConfig, load: LoadOptions, device: torch.device) -> Any:
    """The network to train, with its head or adapter, in float32 (a LoRA base in the forward precision)."""
    dtype = config.precision if config.lora_rank else "float32"
    kind = get_kind(config.family)
    head = None if kind.num_classes is None else _WithHead(kind.num_classes, kind.class_names)
    policy: Any = load_model(model, load, dtype=dtype, device=str(device), model_class=head)
    if hasattr(policy, "peft_config"):
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
        class_names: Names of the outputs, where the checkpoint has none.
    """

    def __init__(self, num_classes: int, class_names: Sequence[str]) -> None:
        self.num_classes = num_classes
        self.class_names = class_names

    def from_pretrained(self, path: str, **arguments: Any) -> Any:
        """As transformers' own."""
        network: Any = transformers.AutoModelForTokenClassification.from_pretrained(
            path, **{**arguments, "num_labels": self.num_classes}
        )
        if self.class_names and network.config.id2label.get(0) == "LABEL_0":
            network.config.id2label = dict(enumerate(self.class_names))
            network.config.label2id = {name: number for number, name in enumerate(self.class_names)}
        network.config.classifier_dropout = 0.0
        if isinstance(getattr(network, "dropout", None), nn.Dropout):
            network.dropout.p = 0.0
        return network


def _with_adapter(policy: nn.Module, config: TrainConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = config.adapted_modules
    has_head = get_kind(config.family).num_classes is not None
    adapter = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        lora_dropout=config.lora_dropout,
        target_modules=targets[0] if targets == ("all-linear",) else list(targets),
        # A head is new, so it is trained whole and saved with the adapter.
        exclude_modules=["score", "classifier"] if has_head else None,
        task_type="TOKEN_CLS" if has_head else "CAUSAL_LM",
    )
    try:
        with quiet():
            adapted = get_peft_model(policy, adapter)
    except ValueError as error:
        raise UserError(
            f"no adapter can be added there ({error})",
            where="--lora-targets",
            hint="name modules that this model has",
        ) from error
    # peft adapts those that it finds, if there is one.
    found = [f".{name}" for name in adapted.targeted_module_names]
    missing = [name for name in targets if not any(module.endswith(f".{name}") for module in found)]
    if missing and targets != ("all-linear",):
        raise UserError(
            f"no module is called {missing[0]!r}",
            where="--lora-targets",
            hint="name modules that this model has",
        )
    return adapted


def _adapter_again(policy: Any, config: TrainConfig) -> Any:
    """An adapter that is trained further, or its base with the adapter merged in to train all weights."""
    if not config.lora_rank:
        return policy.merge_and_unload().requires_grad_(True)  # peft froze the base
    _check_unchanged(policy.peft_config["default"], config)
    policy.set_adapter("default")  # which makes it trainable
    return policy


def _check_unchanged(adapter: Any, config: TrainConfig) -> None:
    """Refuse settings that were given and are not those of the adapter that is trained further."""
    targets = adapter.target_modules or ""
    own = {
        "lora_rank": ("rank", adapter.r),
        "lora_alpha": ("alpha", adapter.lora_alpha),
        "lora_dropout": ("dropout", adapter.lora_dropout),
        "lora_targets": ("targets", targets if isinstance(targets, str) else ",".join(sorted(targets))),
    }
    for name, (word, value) in own.items():
        given = getattr(config, name)
        same = given == value
        if name == "lora_targets":
            same = set(config.adapted_modules) == set(value.split(","))
        if not same and given != TrainConfig.__dataclass_fields__[name].default:
            raise UserError(
                f"the adapter that training starts from has {word} {value}, not {given}",
                where="--" + name.replace("_", "-"),
                hint="use the adapter's, or --lora-rank 0 to merge it and train all weights",
            )


def packs(policy: nn.Module, data: TrainingSet, config: TrainConfig) -> bool:
    """Whether sequences are packed; that calls attention per sequence, which pays where they are long."""
    if config.layout == "padded":
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
