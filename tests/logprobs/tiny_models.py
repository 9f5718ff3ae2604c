"""Tiny random models of the families that people use, and sequences to run through them."""

from __future__ import annotations

import random
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from stepcredit.types import Encoded

VOCABULARY = 97

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
_GEMMA = {"head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 7}

_SPECIAL: dict[str, dict[str, Any]] = {
    "llama-tied": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 4},
    "mistral": {"sliding_window": 7},
    "gemma2": {**_GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {**_GEMMA, "tie_word_embeddings": True},
    "mixtral": {"num_local_experts": 3},
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 8,
    },
    "gpt_oss": {"num_local_experts": 4, "head_dim": 4, "sliding_window": 7},
    # A chunk is longer than the tokens by which packing is tried; the model is its own backbone.
    "llama4_text": {
        "attention_chunk_size": 40,
        "num_local_experts": 2,
        "moe_layers": [],
        "intermediate_size_mlp": 24,
        "head_dim": 4,
        "no_rope_layers": [1, 0],
    },
    # Its window is in the mask alone, and longer than the tokens by which packing is tried.
    "phimoe": {"sliding_window": 40, "num_local_experts": 4},
    "electra": {"embedding_size": 8, "is_decoder": True},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 2.0},
}

PACKABLE = (
    "llama",
    "llama-tied",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "mixtral",
    "qwen2_moe",
    "cohere",
    "granite",
)
NOT_PACKABLE = ("mamba", "bloom", "gpt_oss", "llama4_text", "phimoe")


def tiny_model(family: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A model of two layers with large random weights (biases too), so that every part shows."""
    if family == "mamba":
        settings: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2}
    elif family == "bloom":
        settings = {"vocab_size": VOCABULARY, "hidden_size": 16, "n_layer": 2, "n_head": 4}
    else:
        settings = {**_COMMON, **_SPECIAL.get(family, {})}
    settings |= changes
    torch.manual_seed(seed)
    config = CONFIG_MAPPING[family.split("-")[0]](**settings)
    config._experts_implementation = "eager"  # the grouped kernels know no float64
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "router" not in name and family != "mamba":
                parameter.normal_(std=0.3)
            elif "bias" in name:
                parameter.normal_(std=0.1)
    return model


def prompt_groups(seed: int = 0) -> list[Encoded]:
    """Responses of three prompts: empty, one token, long, equal, one the start of another, branching late."""
    source = random.Random(seed)

    def tokens(number: int) -> tuple[int, ...]:
        return tuple(source.randrange(VOCABULARY) for _ in range(number))

    long_prompt, short_prompt, lone_prompt = tokens(24), tokens(3), tokens(11)
    trunk = tokens(20)
    return [
        Encoded((*long_prompt, *tokens(3)), 24),
        Encoded((*long_prompt, *trunk), 24),
        Encoded(long_prompt, 24),
        Encoded((*long_prompt, *trunk[:18], *tokens(6)), 24),
        Encoded((*short_prompt, *tokens(1)), 3),
        Encoded((*short_prompt, *tokens(8)), 3),
        Encoded((*long_prompt, *trunk), 24),
        Encoded((*long_prompt, *trunk[:9]), 24),
        Encoded((*lone_prompt, *tokens(13)), 11),
        Encoded((*long_prompt, *trunk), 30),
    ]
