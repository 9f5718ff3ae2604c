"""Openings that go on from one another are read once, and what is drawn after them is the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.generators.naive import PROMPTS, make_request, naive_sample, prompt_ids

from stepcredit.generators.limits import BatchLimits
from stepcredit.generators.transformers import TransformersGenerator
from stepcredit.keyvalues import PrefixStore
from stepcredit.types import GenerationRequest, Prompt, Rollout, Sampling

STEPS = ("1+1=2\n", "1+1=2\n2+2=4\n", "1+1=2\n2+2=4\n4+4=8\n", "3\n")


def completions(sampling: dict[str, Any] | None = None) -> list[GenerationRequest]:
    """Every step of two responses to each prompt, and the prompt itself, three samples each."""
    return [
        GenerationRequest(
            prompt=Prompt(id=f"{name}{number}", prompt=text),
            indices=(0, 1, 2),
            sampling=Sampling(max_new_tokens=6, **(sampling or {})),
            response_prefix=prefix,
        )
        for name, text in PROMPTS.items()
        for number, prefix in enumerate(["", *STEPS])
    ]


def drawn(
    generator: TransformersGenerator, requests: Sequence[GenerationRequest]
) -> dict[tuple[str, int], tuple[int, ...]]:
    rollouts = [rollout for rollout in generator.generate(requests) if isinstance(rollout, Rollout)]
    return {(rollout.prompt_id, rollout.index): rollout.response_token_ids or () for rollout in rollouts}


def remembering(model: Any, tokenizer: Any, **limits: int) -> TransformersGenerator:
    bounds = BatchLimits(**limits) if limits else None
    store = PrefixStore(10_000)
    return TransformersGenerator(
        model, tokenizer, name="tiny", tokenizer_hash="hash", store=store, limits=bounds
    )


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.0}, {"top_p": 0.8, "seed": 5}])
@pytest.mark.parametrize("limits", [{}, {"samples": 7}, {"prompt_tokens": 64}])
def test_completions_equal_naive_ones(
    model: Any, tokenizer: Any, sampling: dict[str, Any], limits: dict[str, int]
) -> None:
    requests = completions(sampling)
    found = drawn(remembering(model, tokenizer, **limits), requests)
    for request in requests:
        opening = prompt_ids(tokenizer, str(request.prompt.prompt), request.response_prefix)
        own = len(opening) - len(prompt_ids(tokenizer, str(request.prompt.prompt)))
        for index in request.indices:
            expected = naive_sample(model, opening, request, index)
            assert found[request.prompt.id, index][own:] == expected


def test_a_beginning_is_read_once_for_all_that_go_on_from_it(model: Any, tokenizer: Any) -> None:
    requests = [request for request in completions() if request.response_prefix in STEPS[:3]]
    generator = remembering(model, tokenizer)
    drawn(generator, requests)
    plain = TransformersGenerator(model, tokenizer, name="tiny")
    drawn(plain, requests)
    prompts = [prompt_ids(tokenizer, text) for text in PROMPTS.values()]
    # Each token once, and the last one of each opening again, for what is drawn after it.
    read = sum(map(len, prompts)) + len(prompts) * (len(STEPS[2]) + 3)
    every = sum(
        len(prompt_ids(tokenizer, str(request.prompt.prompt), request.response_prefix))
        for request in requests
    )
    assert plain.computed_tokens - generator.computed_tokens == every - read
    assert generator.ledger == plain.ledger


def test_requests_that_have_nothing_in_common_are_read_as_they_are(model: Any, tokenizer: Any) -> None:
    requests = [make_request(name, text, 3) for name, text in PROMPTS.items()]
    generator, plain = (
        remembering(model, tokenizer),
        TransformersGenerator(model, tokenizer, name="tiny", tokenizer_hash="hash"),
    )
    assert drawn(generator, requests) == drawn(plain, requests)
    assert generator.computed_tokens == plain.computed_tokens
