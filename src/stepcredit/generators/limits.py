"""How much a local model runs at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from stepcredit.logprobs.float32_products import computes_in_float32

_MOST_SAMPLES = 2048
_HOST_MEMORY = 4 << 30
"""Bytes that a model on the CPU may use beside its weights."""
_CACHE_SHARE, _DRAW_SHARE = 0.5, 0.25
_DRAW_BYTES = 40
"""Bytes a row and token id: logits, weights in double precision, their sum, and what sorting needs."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much runs at once; no limit changes what is drawn.

    Attributes:
        samples: Most samples that run together.
        cached_tokens: Most tokens, over all running samples and padding included, that the key-value cache
            may come to hold.
        prompt_tokens: Most prompt tokens, padding included, that are read at once.
    """

    samples: int = _MOST_SAMPLES
    cached_tokens: int = 1 << 18
    prompt_tokens: int = 1 << 15

    @classmethod
    def fitting(
        cls, model: Any, *, samples: int | None = None, cached_tokens: int | None = None
    ) -> BatchLimits:
        """Limits that suit a model's size and its device's memory."""
        config = model.config.get_text_config(decoder=True)
        weight = next(model.parameters())
        on_cuda = weight.device.type == "cuda"
        memory = torch.cuda.mem_get_info(weight.device)[0] if on_cuda else _HOST_MEMORY
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        element_size = 4 if computes_in_float32(model) else weight.element_size()
        token_bytes = 2 * config.num_hidden_layers * kv_heads * width * element_size
        drawn = int(_DRAW_SHARE * memory) // (config.vocab_size * _DRAW_BYTES)
        return cls(
            samples=samples or max(1, min(_MOST_SAMPLES, drawn)),
            cached_tokens=cached_tokens or max(1, int(_CACHE_SHARE * memory) // token_bytes),
        )
