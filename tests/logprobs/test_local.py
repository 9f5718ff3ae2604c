from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.logprobs.naive import in_float64, naive_token_log_probs
from tests.logprobs.tiny_models import prompt_groups, tiny_model

from stepcredit.logprobs import LocalTokenLogProbs
from stepcredit.types import Encoded

SEQUENCES = prompt_groups()


def assert_right(model: Any, source: LocalTokenLogProbs, encoded: list[Encoded]) -> None:
    with torch.no_grad():
        expected = naive_token_log_probs(in_float64(model), encoded)
    actual = source.of(encoded)
    assert len(actual) == len(encoded)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("share_prefixes", [True, False])
@pytest.mark.parametrize("token_budget", [1, 60, None])
@pytest.mark.parametrize("family", ["llama-tied", "gemma2", "mamba"])
def test_equals_the_oracle_in_input_order(
    family: str, token_budget: int | None, share_prefixes: bool
) -> None:
    model = tiny_model(family)
    source = LocalTokenLogProbs(
        model, weights_hash="w", token_budget=token_budget, share_prefixes=share_prefixes
    )
    assert_right(model, source, SEQUENCES)


@pytest.mark.parametrize("number", [0, 1])
def test_groups_of_none_and_one(number: int) -> None:
    model = tiny_model("llama")
    assert_right(model, LocalTokenLogProbs(model, weights_hash="w"), SEQUENCES[:number])


def test_leaves_mode_attention_and_gradients_as_they_were() -> None:
    model = tiny_model("llama").train()
    before = model.config._attn_implementation
    LocalTokenLogProbs(model, weights_hash="w").of(SEQUENCES)
    assert model.training
    assert model.config._attn_implementation == before
    assert all(parameter.grad is None for parameter in model.parameters())
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()


def test_switching_the_adapter_off_gives_the_base_model() -> None:
    base = tiny_model("llama")
    expected = LocalTokenLogProbs(base, weights_hash="w").of(SEQUENCES)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    reference = LocalTokenLogProbs(adapted, weights_hash="w", adapter_off=True)
    policy = LocalTokenLogProbs(adapted, weights_hash="w and adapter")
    for ours, theirs in zip(reference.of(SEQUENCES), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    assert np.abs(policy.of(SEQUENCES)[1] - expected[1]).max() > 1e-3
    assert reference.fingerprint != policy.fingerprint
    assert reference.fingerprint == LocalTokenLogProbs(tiny_model("llama"), weights_hash="w").fingerprint


def test_the_fingerprint_names_what_the_numbers_depend_on() -> None:
    model = tiny_model("llama")
    prints = [
        LocalTokenLogProbs(model, weights_hash="a").fingerprint,
        LocalTokenLogProbs(model, weights_hash="b").fingerprint,
        LocalTokenLogProbs(model, weights_hash="a", share_prefixes=False).fingerprint,
    ]
    model.set_attn_implementation("eager")
    prints.append(LocalTokenLogProbs(model, weights_hash="a").fingerprint)
    prints.append(LocalTokenLogProbs(model.to(torch.bfloat16), weights_hash="a").fingerprint)
    assert len(set(prints)) == len(prints)
    again = LocalTokenLogProbs(model, weights_hash="a", token_budget=7)
    assert again.fingerprint == prints[-1]
    again.of(SEQUENCES)
    assert again.fingerprint == prints[-1]


def test_bad_settings_are_named() -> None:
    model = tiny_model("llama")
    with pytest.raises(ValueError, match="token_budget must be at least 1, got 0"):
        LocalTokenLogProbs(model, weights_hash="w", token_budget=0)
    with pytest.raises(ValueError, match="needs a PEFT model"):
        LocalTokenLogProbs(model, weights_hash="w", adapter_off=True)
