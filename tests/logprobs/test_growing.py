"""What was read is not read again, and the numbers are those of reading everything."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from tests.logprobs.tiny_models import PACKABLE, VOCABULARY, tiny_model

from stepcredit.keyvalues import PrefixStore
from stepcredit.logprobs import LocalTokenLogProbs
from stepcredit.logprobs.growing import GrowingTokenLogProbs, growing
from stepcredit.types import Encoded


def _source(model: Any, **settings: Any) -> LocalTokenLogProbs:
    return LocalTokenLogProbs(model, weights_hash="weights", share_prefixes=False, **settings)


def _growth(seed: int = 0, prompts: int = 2, width: int = 3, depth: int = 4) -> list[list[Encoded]]:
    """Rounds of partial responses, each continuing one of the round before."""
    draw = random.Random(seed)
    roots = [
        tuple(draw.randrange(3, VOCABULARY) for _ in range(draw.randrange(2, 9))) for _ in range(prompts)
    ]
    live: list[tuple[tuple[int, ...], tuple[int, ...]]] = [(root, ()) for root in roots]
    rounds = []
    for _ in range(depth):
        live = [
            (root, (*response, *(draw.randrange(3, VOCABULARY) for _ in range(draw.randrange(1, 6)))))
            for root, response in draw.choices(live, k=width * prompts)
        ]
        rounds.append([Encoded((*root, *response), len(root)) for root, response in live])
    return rounds


@pytest.mark.parametrize("family", PACKABLE)
def test_equals_reading_everything_again(family: str) -> None:
    model = tiny_model(family, dtype=torch.float64)
    remembering = GrowingTokenLogProbs(_source(model), PrefixStore(10_000))
    alone = _source(model, token_budget=1)  # No padding: Gemma 2 in float64 makes it NaN.
    for encoded in _growth():
        for ours, whole in zip(remembering.of(encoded), alone.of(encoded), strict=True):
            np.testing.assert_allclose(ours, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 7, 64])
def test_the_token_budget_changes_nothing(budget: int) -> None:
    model = tiny_model("llama", dtype=torch.float64)
    remembering = GrowingTokenLogProbs(_source(model, token_budget=budget), PrefixStore(10_000))
    for encoded in _growth(seed=1):
        for ours, whole in zip(remembering.of(encoded), _source(model).of(encoded), strict=True):
            np.testing.assert_allclose(ours, whole, rtol=0, atol=1e-5)


def test_a_small_store_forgets_and_reads_again() -> None:
    model = tiny_model("qwen3", dtype=torch.float64)
    remembering = GrowingTokenLogProbs(_source(model), PrefixStore(6))
    for encoded in _growth(seed=2):
        for ours, whole in zip(remembering.of(encoded), _source(model).of(encoded), strict=True):
            np.testing.assert_allclose(ours, whole, rtol=0, atol=1e-5)


def test_a_step_costs_its_own_tokens() -> None:
    remembering = GrowingTokenLogProbs(_source(tiny_model("llama")), PrefixStore(10_000))
    prompt, first, second = tuple(range(3, 43)), (5, 6, 7), (8, 9)
    remembering.of([Encoded(prompt + first, len(prompt))])
    before = remembering.computed_tokens
    remembering.of([Encoded(prompt + first + second, len(prompt))])
    # The last token that was read is read again: its state predicts the first new one.
    assert remembering.computed_tokens - before == len(second) + 1


def test_of_very_different_lengths_little_is_padding_and_the_numbers_are_the_same() -> None:
    model = tiny_model("llama", dtype=torch.float64)
    forwarded: list[int] = []
    model.register_forward_pre_hook(
        lambda _, arguments, named: forwarded.append(named["input_ids"].numel()), with_kwargs=True
    )
    draw = random.Random(3)
    encoded = [
        Encoded((5, 6, *(draw.randrange(3, VOCABULARY) for _ in range(length))), 2)
        for length in (1, 2, 3, 5, 8, 60, 70, 80)
    ]
    remembering = GrowingTokenLogProbs(_source(model), PrefixStore(10_000))
    ours = remembering.of(encoded)
    assert sum(forwarded) < 1.5 * remembering.computed_tokens
    for own, whole in zip(ours, _source(model).of(encoded), strict=True):
        np.testing.assert_allclose(own, whole, rtol=0, atol=1e-5)


def test_a_prompt_is_read_once_for_all_responses() -> None:
    remembering = GrowingTokenLogProbs(_source(tiny_model("llama")), PrefixStore(10_000))
    prompt = tuple(range(3, 43))
    remembering.of([Encoded((*prompt, 3 + number, 4), len(prompt)) for number in range(8)])
    assert remembering.computed_tokens == len(prompt) + 8 * 3


def test_empty_and_repeated_sequences_have_their_places() -> None:
    model = tiny_model("llama", dtype=torch.float64)
    remembering = growing(_source(model))
    encoded = [Encoded((3, 4, 5), 3), Encoded((3, 4, 5), 1), Encoded((3,), 1), Encoded((3, 4, 5), 1)]
    assert [len(numbers) for numbers in remembering.of(encoded)] == [0, 2, 0, 2]
    np.testing.assert_array_equal(remembering.of(encoded)[1], remembering.of(encoded)[3])


def test_models_without_keys_and_values_stay_as_they_are() -> None:
    source = _source(tiny_model("mamba"))
    assert growing(source) is source


def test_it_has_the_fingerprint_of_its_source() -> None:
    source = _source(tiny_model("llama"))
    assert growing(source).fingerprint == source.fingerprint
