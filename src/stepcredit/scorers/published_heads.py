"""Published PRMs that are a backbone with a small head, loaded without the remote code that defines them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import transformers
from torch import Tensor, nn

from stepcredit.checkpoints import LoadOptions, load_model
from stepcredit.encoding import QwenPRMEncoding, SkyworkPRMEncoding
from stepcredit.errors import CheckpointError
from stepcredit.scorers.heads import probabilities
from stepcredit.scorers.step_models import StepKind

_HEAD_PREFIXES = ("score.", "v_head.summary.")


class HeadedModel(nn.Module):
    """A token classifier made of a backbone and a head.

    Args:
        backbone: A transformers model without head.
    """

    def __init__(self, backbone: Any, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.config = backbone.config

    def forward(self, **inputs: Any) -> SimpleNamespace:
        """``logits`` of every token."""
        hidden: Tensor = self.backbone(**inputs)[0]
        # A backbone that is spread over devices ends on another one than the head is on.
        return SimpleNamespace(logits=self.head(hidden.to(next(self.head.parameters()).device)))

    def get_base_model(self) -> Any:
        """What runs under the head, where packing is switched on."""
        return self.backbone

    def get_input_embeddings(self) -> nn.Module:
        """The backbone's."""
        embeddings: nn.Module = self.backbone.get_input_embeddings()
        return embeddings

    def num_parameters(self) -> int:
        """Of backbone and head."""
        return sum(parameter.numel() for parameter in self.parameters())


def load_headed(path: Path, load: LoadOptions) -> HeadedModel:
    """Load a backbone and its ``score`` (Qwen2.5-Math-PRM) or ``v_head`` (Skywork-o1-PRM) weights.

    Raises:
        CheckpointError: There is no such head.
    """
    backbone: Any = load_model(
        path, replace(load, trust_remote_code=False), model_class=transformers.AutoModel
    )
    head = make_head(_head_weights(path), path)
    device = next(backbone.parameters()).device
    return HeadedModel(backbone, head.to(device=device, dtype=backbone.dtype)).eval()


def make_head(weights: dict[str, Tensor], where: Path) -> nn.Module:
    """Linear layers with a ReLU between them, from their weights by name.

    Raises:
        CheckpointError: The weights are not those of such a head.
    """
    layers: list[nn.Module] = []
    for name in sorted(name for name in weights if name.endswith("weight")):
        weight, bias = weights[name], weights.get(name.removesuffix("weight") + "bias")
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
        layers += [nn.ReLU(), layer] if layers else [layer]
    if not layers:
        raise CheckpointError(
            f"has no head ({' or '.join(prefix + '*' for prefix in _HEAD_PREFIXES)} in its weights)",
            where=where,
            hint="name its family with --family",
        )
    return nn.Sequential(*layers)


def _head_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    weights: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (a handle, not a mapping)
                match = re.fullmatch(rf"(?:.*\.)?(?:{'|'.join(map(re.escape, _HEAD_PREFIXES))})(.+)", name)
                if match:
                    weights[match[1]] = tensors.get_tensor(name)
    return weights


QWEN_PRM = StepKind(
    name="qwen-prm",
    encoding=QwenPRMEncoding,
    architecture="ForProcessRewardModel",
    load_weights=lambda checkpoint: load_headed(checkpoint.path, checkpoint.load),
    from_logits=probabilities,
    step_rule="blank-line",
)
SKYWORK_PRM = replace(
    QWEN_PRM,
    name="skywork-prm",
    encoding=SkyworkPRMEncoding,
    architecture="ForPrmModel",
    step_rule="newline",
)
