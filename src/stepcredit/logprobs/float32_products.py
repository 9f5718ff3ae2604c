"""Half-precision weights on a CPU that has no instructions for them: float32 arithmetic.

There PyTorch's own products of such numbers take about seven times as long as those of float32. Weights stay
in their format, which halves their memory, and each layer's is made float32 while it is used; so numbers are
those of the rounded weights in float32.
"""

from __future__ import annotations

import platform
from functools import cache
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

_MARK = "_stepcredit_computes_in_float32"
_WHOLE_WEIGHT = 2**21
"""Numbers of a weight that are made float32 at once: 8 MiB stay in a large CPU cache."""


@cache
def lacks_half_precision() -> bool:
    """Whether this machine's CPU multiplies half-precision numbers much slower than float32."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    cpu: Any = torch.cpu
    return not (cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def needs_float32(dtype: str, device: str) -> bool:
    """Whether models in a number format are made to compute in float32 on a device."""
    return device == "cpu" and dtype in ("bfloat16", "float16") and lacks_half_precision()


def fit_to_processor(model: Any) -> Any:
    """The model as inference runs it fastest here: :func:`compute_in_float32` where that is needed."""
    weight = next(model.parameters())
    if needs_float32(str(weight.dtype).removeprefix("torch."), weight.device.type):
        compute_in_float32(model)
    return model


def compute_in_float32(model: nn.Module) -> None:
    """Let a model in half precision compute in float32.

    Weights of linear layers and embeddings stay as they are; others, which are few, become float32.
    """
    for module in model.modules():
        if hasattr(module, "get_output_embeddings"):
            setattr(module, _MARK, True)
        if type(module) is nn.Linear:
            module.forward = MethodType(_linear, module)  # type: ignore[method-assign]
        elif type(module) is nn.Embedding:
            module.forward = MethodType(_embedding, module)  # type: ignore[method-assign]
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()


def computes_in_float32(model: Any) -> bool:
    """Whether :func:`compute_in_float32` was called for a model."""
    return bool(getattr(model, _MARK, False))


def _linear(self: nn.Linear, states: Tensor) -> Tensor:
    states = states.float()
    bias = None if self.bias is None else self.bias.float()
    if self.weight.numel() <= _WHOLE_WEIGHT:
        return functional.linear(states, self.weight.float(), bias)
    # A head's weight would take more memory than all else, and leave the cache before it is used.
    size = max(1, _WHOLE_WEIGHT // self.in_features)
    parts = [
        functional.linear(
            states,
            self.weight[start : start + size].float(),
            None if bias is None else bias[start : start + size],
        )
        for start in range(0, self.out_features, size)
    ]
    return torch.cat(parts, dim=-1)


def _embedding(self: nn.Embedding, ids: Tensor) -> Tensor:
    return functional.embedding(ids, self.weight, self.padding_idx).float()
