"""Attention to prompts that are held once, against loops in float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from stepcredit.keyvalues.shared_prompts import IMPLEMENTATION, SharedPrompt, shared_prompt_attention, sharing

HEADS, KEY_HEADS, WIDTH = 6, 2, 8
LENGTHS = {0: 5, 1: 3}
"""Tokens of the two prompts."""
ROWS = {0: [4, 0, 2], 1: [1]}
"""Which rows continue which; row 3 continues none."""


def _naive(query: Any, keys: Any, values: Any, scale: float) -> Any:
    """Attention of one head's query to keys in plain Python."""
    scores = [scale * sum(q * k for q, k in zip(query, key, strict=True)) for key in keys]
    weights = [np.exp(score) for score in scores]
    return [
        sum(weight * value[place] for weight, value in zip(weights, values, strict=True)) / sum(weights)
        for place in range(WIDTH)
    ]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_attention_equals_a_naive_one(masked: bool, scaling: float | None) -> None:
    torch.manual_seed(0)
    query = torch.randn(5, HEADS, 1, WIDTH, dtype=torch.float64)
    key, value = torch.randn(2, 5, KEY_HEADS, 4, WIDTH, dtype=torch.float64)
    states = {
        prompt: tuple(
            tuple(torch.randn(2, KEY_HEADS, length, WIDTH, dtype=torch.float64)) for _layer in range(2)
        )
        for prompt, length in LENGTHS.items()
    }
    unused = torch.tensor([0, 3, 1, 2, 0] if masked else [0] * 5)
    mask = (torch.arange(4)[None, :] >= unused[:, None])[:, None, None, :]
    shared = [SharedPrompt(states[prompt], torch.tensor(rows)) for prompt, rows in ROWS.items()]
    module: Any = SimpleNamespace(layer_idx=1)
    result, _ = shared_prompt_attention(
        module, query, key, value, mask if masked else None, scaling=scaling, shared_prompts=shared
    )
    assert result.shape == (5, 1, HEADS, WIDTH)
    for row in range(5):
        prompt = next((prompt for prompt, rows in ROWS.items() if row in rows), None)
        for head in range(HEADS):
            group = head // (HEADS // KEY_HEADS)
            keys, values = key[row, group, unused[row] :], value[row, group, unused[row] :]
            if prompt is not None:
                before_keys, before_values = states[prompt][1]
                keys = torch.cat([before_keys[group], keys])
                values = torch.cat([before_values[group], values])
            expected = _naive(
                query[row, head, 0].tolist(),
                keys.tolist(),
                values.tolist(),
                WIDTH**-0.5 if scaling is None else scaling,
            )
            np.testing.assert_allclose(result[row, 0, head].numpy(), expected, rtol=0, atol=1e-14)


def test_a_long_prompt_of_large_scores_does_not_overflow() -> None:
    query = torch.full((1, 1, 1, WIDTH), 7.0)
    key = value = torch.full((1, 1, 1, WIDTH), 7.0)
    prompt = (torch.full((1, 900, WIDTH), 7.0), torch.full((1, 900, WIDTH), -2.0))
    module: Any = SimpleNamespace(layer_idx=0)
    result, _ = shared_prompt_attention(
        module, query, key, value, None, shared_prompts=[SharedPrompt((prompt,), torch.tensor([0]))]
    )
    expected = (900 * -2.0 + 7.0) / 901
    np.testing.assert_allclose(result.numpy(), np.full((1, 1, 1, WIDTH), expected), rtol=1e-4)


@pytest.mark.parametrize("setting", ["softcap", "s_aux", "position_bias", "sliding_window"])
def test_what_changes_attention_is_refused(setting: str) -> None:
    query = torch.zeros(1, 1, 1, WIDTH)
    with pytest.raises(ValueError, match=setting):
        shared_prompt_attention(torch.nn.Module(), query, query, query, None, **{setting: 1.0})  # type: ignore[arg-type]


def test_a_model_attends_as_usual_again_afterwards() -> None:
    config = LlamaConfig(attn_implementation="sdpa")  # type: ignore[call-arg]
    model: Any = SimpleNamespace(config=config)
    usual = config._attn_implementation
    with sharing(model, ()) as inputs:
        assert inputs == {}
        assert config._attn_implementation == usual
    prompts = [SharedPrompt((), torch.tensor([0]))]
    with pytest.raises(ValueError, match="in the model"), sharing(model, prompts) as inputs:
        assert inputs == {"shared_prompts": prompts}
        assert config._attn_implementation == IMPLEMENTATION
        raise ValueError("in the model")
    assert config._attn_implementation == usual
