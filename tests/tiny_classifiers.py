"""The configuration of tiny classifiers over the vocabulary of the tests' tokenizers."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig


def classifier_config(**settings: Any) -> LlamaConfig:
    """Two layers with weights large enough for outputs to differ."""
    return LlamaConfig(
        vocab_size=340,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.3,
        **settings,
    )
