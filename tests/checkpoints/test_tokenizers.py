"""How many tokens a model reads."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Gemma3TextConfig, LlamaConfig, MambaConfig, Phi3Config, PreTrainedConfig

from stepcredit.checkpoints import context_length

LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 48,
    "long_factor": [2.0] * 48,
    "original_max_position_embeddings": 4096,
}


def by_kind_of_layer() -> PreTrainedConfig:
    config = Gemma3TextConfig(max_position_embeddings=131072)
    config.rope_parameters = {"sliding_attention": {"rope_type": "default"}, "full_attention": LONGROPE}
    return config


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        (LlamaConfig(max_position_embeddings=2048), 2048),
        (
            LlamaConfig(
                max_position_embeddings=2048,
                rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
            ),
            2048,
        ),
        (Phi3Config(max_position_embeddings=131072, rope_parameters=LONGROPE), 4096),
        (by_kind_of_layer(), 4096),
        (Gemma3TextConfig(max_position_embeddings=131072), 131072),
        (MambaConfig(), None),
    ],
    ids=["llama", "dynamic", "longrope", "longrope in some layers", "no longrope in any layer", "recurrent"],
)
def test_a_context_ends_where_a_text_would_change_the_others_of_its_batch(
    configuration: PreTrainedConfig, expected: int | None
) -> None:
    assert context_length(configuration) == expected
