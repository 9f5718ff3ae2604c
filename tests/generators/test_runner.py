"""Rows that continue one prompt hold it once; what is drawn stays the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import product
from typing import Any

import pytest
import torch
from tests.generators.naive import PROMPTS, by_steps, generate, make_request, naive_sample, prompt_ids
from transformers import AutoConfig, AutoModelForCausalLM

from stepcredit.generators import runner
from stepcredit.generators.limits import BatchLimits
from stepcredit.generators.transformers import TransformersGenerator
from stepcredit.keyvalues import PrefixStore
from stepcredit.keyvalues.shared_prompts import SharedPrompt, sharing


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """For each call of a model, how many rows continue each shared prompt; short prompts are shared too."""
    seen: list[list[int]] = []

    def noted(model: Any, prompts: Sequence[SharedPrompt]) -> AbstractContextManager[dict[str, Any]]:
        seen.append([len(prompt.rows) for prompt in prompts])
        return sharing(model, prompts)

    monkeypatch.setattr(runner, "sharing", noted)
    monkeypatch.setattr(runner, "LEAST_SHARED_TOKENS", 1)
    monkeypatch.setattr(runner, "LEAST_COPIED_TOKENS", 1)
    return seen


@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 0.0}, {"top_p": 0.8, "seed": 3}, {"temperature": 1.6}]
)
def test_draws_equal_naive_ones(
    model: Any, tokenizer: Any, calls: list[list[int]], sampling: dict[str, Any]
) -> None:
    """Prompts of different lengths, read at different times, one of them for a single sample."""
    samples = {"a": 5, "b": 4, "c": 1, "d": 3, "e": 6}
    requests = [make_request(name, text, samples[name], **sampling) for name, text in PROMPTS.items()]
    drawn = generate(model, tokenizer, requests, BatchLimits(samples=9))
    assert len(drawn) == sum(samples.values())
    for request in requests:
        opening = prompt_ids(tokenizer, PROMPTS[request.prompt.id])
        for index in request.indices:
            rollout = drawn[request.prompt.id, index, f"{request.prompt.id}:{index}"]
            assert rollout.response_token_ids == naive_sample(model, opening, request, index)
    assert max(len(rows) for rows in calls) >= 2
    if sampling.get("temperature") != 0.0:
        assert max(max(rows, default=0) for rows in calls) >= 4


NUM_PROBED = 6
"""Calls by which a model is tried: three without shared prompts, three with them."""
FULL = ["full_attention"] * 2
SHARE: dict[str, tuple[bool, dict[str, Any]]] = {
    "llama": (True, {}),
    "qwen2": (True, {}),
    "qwen3": (True, {"head_dim": 8}),
    "gpt2": (True, {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 96}),
    "phi": (True, {"num_key_value_heads": 2}),
    "gemma2 with a soft cap": (False, {"layer_types": FULL, "head_dim": 8}),
    "gpt_oss with sinks": (False, {"layer_types": FULL, "head_dim": 8, "num_local_experts": 4}),
    "mistral": (False, {"sliding_window": 5}),
    "gemma2": (False, {"sliding_window": 6, "head_dim": 8}),
    "bloom": (False, {"n_layer": 2, "n_head": 2}),
    "mpt": (False, {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 96}),
}


@pytest.mark.parametrize("architecture", SHARE)
def test_models_share_where_their_attention_allows_it(
    tokenizer: Any, calls: list[list[int]], architecture: str
) -> None:
    shares, settings = SHARE[architecture]
    torch.manual_seed(1)
    size: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 96,
    }
    size = {} if architecture in ("gpt2", "mpt") else size
    names = {"vocab_size": len(tokenizer), "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 0}
    config = AutoConfig.for_model(architecture.split()[0], **{**size, **settings, **names})
    other: Any = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in other.parameters():
            if weight.ndim == 2:
                weight.mul_(8.0)
    usual = other.config._attn_implementation
    requests = [make_request(name, text, 3) for name, text in PROMPTS.items()]
    drawn = generate(other, tokenizer, requests, BatchLimits(samples=7))
    assert any(calls[NUM_PROBED:]) == shares
    assert other.config._attn_implementation == usual
    for request, index in product(requests, range(3)):
        expected = naive_sample(other, prompt_ids(tokenizer, PROMPTS[request.prompt.id]), request, index)
        assert drawn[request.prompt.id, index, f"{request.prompt.id}:{index}"].response_token_ids == expected


def test_order_batches_and_what_else_is_asked_for_change_nothing(
    model: Any, tokenizer: Any, calls: list[list[int]]
) -> None:
    requests = [make_request(name, text, 6) for name, text in PROMPTS.items()]
    whole = generate(model, tokenizer, requests)
    for limits in (BatchLimits(samples=2), BatchLimits(samples=7), BatchLimits(cached_tokens=100)):
        assert generate(model, tokenizer, requests[::-1], limits) == whole
    assert any(calls)


@pytest.mark.parametrize("sampling", [{}, {"top_p": 0.8, "seed": 5}])
def test_what_was_read_and_drawn_can_be_kept(
    model: Any, tokenizer: Any, calls: list[list[int]], sampling: dict[str, Any]
) -> None:
    held, remembering = by_steps(model, tokenizer, PrefixStore(10_000), sampling)
    assert any(calls)
    stateless, whole = by_steps(model, tokenizer, None, sampling)
    assert [(r.id, r.response_token_ids) for r in held] == [(r.id, r.response_token_ids) for r in stateless]
    assert remembering.computed_tokens < 0.5 * whole.computed_tokens


def _widest(model: Any, tokenizer: Any, record: Callable[[int], None]) -> TransformersGenerator:
    generator = TransformersGenerator(
        model, tokenizer, name="tiny", limits=BatchLimits(samples=64, cached_tokens=200)
    )
    run = generator._runner.forward

    def forward(cache: Any, token_ids: Any, padding: Any, prompts: Any = ()) -> Any:
        record(len(token_ids))
        return run(cache, token_ids, padding, prompts)

    generator._runner.forward = forward  # type: ignore[method-assign]
    return generator


def test_a_prompt_that_is_held_once_leaves_room_for_samples(
    model: Any, tokenizer: Any, calls: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request("a", "1+2=" * 15, 20, max_new_tokens=5, temperature=1.6)
    rows: list[int] = []
    list(_widest(model, tokenizer, rows.append).generate([request]))
    assert max(rows) > 8
    monkeypatch.setattr(runner, "LEAST_SHARED_TOKENS", 1000)
    apart: list[int] = []
    list(_widest(model, tokenizer, apart.append).generate([request]))
    assert max(apart) <= 200 // 65
