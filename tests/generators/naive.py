"""Requests, what is drawn for them, and the same by hand, without batch or cache."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from stepcredit.generators.limits import BatchLimits
from stepcredit.generators.streams import stream_key, uniforms
from stepcredit.generators.transformers import TransformersGenerator
from stepcredit.keyvalues import PrefixStore
from stepcredit.types import GenerationRequest, Prompt, Rollout, Sampling

END = 1


def make_request(
    name: str, text: str, num_samples: int, prefix: str = "", **sampling: Any
) -> GenerationRequest:
    return GenerationRequest(
        prompt=Prompt(id=name, prompt=text, answer="4", extras={"level": 2}),
        indices=tuple(range(num_samples)),
        sampling=Sampling(**{"max_new_tokens": 12, **sampling}),
        response_prefix=prefix,
    )


def generate(
    model: Any, tokenizer: Any, requests: Iterable[GenerationRequest], limits: BatchLimits | None = None
) -> dict[tuple[str, int, str], Rollout]:
    generator = TransformersGenerator(model, tokenizer, name="tiny", tokenizer_hash="hash", limits=limits)
    drawn: dict[tuple[str, int, str], Rollout] = {}
    for rollout in generator.generate(requests):
        assert isinstance(rollout, Rollout), rollout
        key = (rollout.prompt_id, rollout.index, rollout.id)
        assert key not in drawn
        drawn[key] = rollout
    return drawn


def naive_weights(logits: np.ndarray[Any, Any], sampling: Sampling) -> list[float]:
    """Temperature, top-k, top-p and min-p one after another, by sorting, in double precision."""
    weights = [float(np.exp((x - max(logits)) / sampling.temperature)) for x in logits]
    ranked = sorted(range(len(weights)), key=lambda token: -weights[token])
    ranked = ranked[: sampling.top_k or None]
    wanted, reached, kept = sampling.top_p * sum(weights[token] for token in ranked), 0.0, 0
    while sampling.top_p < 1 and reached < wanted:
        reached += weights[ranked[kept]]
        kept += 1
    ranked = [token for token in ranked[: kept or None] if weights[token] >= sampling.min_p]
    return [weight if token in ranked else 0.0 for token, weight in enumerate(weights)]


def naive_sample(
    model: Any, opening: Sequence[int], request: GenerationRequest, index: int
) -> tuple[int, ...]:
    """One sample without batch or cache: the whole sequence is run again for each token."""
    sampling = request.sampling
    key = stream_key(sampling.seed, request.prompt.id, index, request.response_prefix)
    drawn: list[int] = []
    while len(drawn) < sampling.max_new_tokens and END not in drawn:
        with torch.no_grad():
            output = model(input_ids=torch.tensor([[*opening, *drawn]]), use_cache=False)
        logits = output.logits[0, -1].double().numpy()
        if sampling.temperature == 0:
            drawn.append(int(np.argmax(logits)))
            continue
        weights = naive_weights(logits, sampling)
        number = float(uniforms(np.asarray([key], np.uint64), np.asarray([len(drawn)]))[0])
        drawn.append(next(t for t in range(len(weights)) if sum(weights[: t + 1]) > number * sum(weights)))
    return tuple(drawn)


def prompt_ids(tokenizer: Any, text: str, prefix: str = "") -> list[int]:
    messages = [{"role": "user", "content": text}]
    formatted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(formatted + prefix, add_special_tokens=False)["input_ids"]
    return ids


PROMPTS = {"a": "1+2=", "b": "7*8+5-3+9=", "c": "4", "d": "2+2=", "e": "99-9*3="}
STEP: dict[str, Any] = {"stop": ("\n", "="), "keep_stop": True, "max_new_tokens": 6}


def by_steps(
    model: Any, tokenizer: Any, store: PrefixStore | None, sampling: dict[str, Any], rounds: int = 5
) -> tuple[list[Rollout], TransformersGenerator]:
    """Responses drawn step by step, three continuations of each kept one at a time."""
    generator = TransformersGenerator(model, tokenizer, name="tiny", tokenizer_hash="hash", store=store)
    live = [make_request(name, text, 3, **STEP, **sampling) for name, text in PROMPTS.items()]
    drawn: list[Rollout] = []
    for _ in range(rounds):
        fresh = [rollout for rollout in generator.generate(live) if isinstance(rollout, Rollout)]
        fresh.sort(key=lambda rollout: rollout.id)
        drawn += fresh
        live = [
            GenerationRequest(
                prompt=Prompt(id=rollout.prompt_id, prompt=rollout.prompt),
                indices=(0, 1, 2),
                sampling=Sampling(**STEP, **sampling),
                response_prefix=rollout.response,
                response_prefix_ids=rollout.response_token_ids,
            )
            for rollout in fresh[::3]
            if rollout.response_token_ids and rollout.response_token_ids[-1] != END
        ]
    return drawn, generator
