from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from tests.generators.naive import (
    END,
    PROMPTS,
    by_steps,
    generate,
    make_request,
    naive_sample,
    naive_weights,
    prompt_ids,
)
from transformers import AutoConfig, AutoModelForCausalLM

from stepcredit.errors import CheckpointError, UserError
from stepcredit.generators.limits import BatchLimits
from stepcredit.generators.transformers import TransformersGenerator
from stepcredit.keyvalues import PrefixStore
from stepcredit.types import GenerationFailure, GenerationRequest, Prompt, Rollout

SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "plain": {},
    "hot": {"temperature": 1.6, "seed": 3},
    "top-p": {"top_p": 0.8},
    "top-k": {"top_k": 4, "temperature": 1.3},
    "min-p": {"min_p": 0.1},
    "all": {"temperature": 0.9, "top_p": 0.9, "top_k": 12, "min_p": 0.02},
}


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_batched_and_cached_draws_equal_naive_ones(model: Any, tokenizer: Any, sampling: Any) -> None:
    requests = [make_request(name, text, 3, **sampling) for name, text in PROMPTS.items()]
    drawn = generate(model, tokenizer, requests, BatchLimits(samples=6))
    assert len(drawn) == 15
    for request, index in product(requests, range(3)):
        expected = naive_sample(model, prompt_ids(tokenizer, PROMPTS[request.prompt.id]), request, index)
        rollout = drawn[request.prompt.id, index, f"{request.prompt.id}:{index}"]
        assert rollout.response_token_ids == expected
        assert rollout.finish_reason == ("stop" if expected[-1] == END else "length")


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 96},
    "qwen2": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "mistral": {"sliding_window": 5},
    "gemma2": {"sliding_window": 6, "head_dim": 8},
    "gemma3_text": {"sliding_window": 6, "head_dim": 8},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 96},
    "phi": {},
    "llama4_text": {
        "attention_chunk_size": 8,
        "num_local_experts": 2,
        "moe_layers": [],
        "intermediate_size_mlp": 32,
        "head_dim": 8,
        "no_rope_layers": [1, 0],
    },
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_architectures_draw_what_they_draw_without_a_cache(tokenizer: Any, architecture: str) -> None:
    torch.manual_seed(1)
    size = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1 if architecture != "phi" else 2,
        "max_position_embeddings": 96,
    }
    size = {} if architecture == "gpt2" else size
    config = AutoConfig.for_model(
        architecture,
        **{**size, **ARCHITECTURES[architecture]},
        vocab_size=len(tokenizer),
        eos_token_id=END,
        pad_token_id=0,
        bos_token_id=0,
    )
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8.0)
    requests = [make_request(name, text, 2) for name, text in PROMPTS.items()]
    drawn = generate(model, tokenizer, requests, BatchLimits(samples=4))
    for request, index in product(requests, range(2)):
        expected = naive_sample(model, prompt_ids(tokenizer, PROMPTS[request.prompt.id]), request, index)
        assert drawn[request.prompt.id, index, f"{request.prompt.id}:{index}"].response_token_ids == expected


def test_what_is_drawn_does_not_depend_on_order_batches_or_what_else_is_asked_for(
    model: Any, tokenizer: Any
) -> None:
    requests = [make_request(name, text, 6) for name, text in PROMPTS.items()]
    whole = generate(model, tokenizer, requests)
    for limits in (BatchLimits(samples=1), BatchLimits(samples=7), BatchLimits(cached_tokens=100)):
        assert generate(model, tokenizer, requests[::-1], limits) == whole
    some = [replace(request, indices=(4, 1)) for request in requests[1::2]]
    parts = generate(model, tokenizer, some, BatchLimits(samples=3, prompt_tokens=20))
    assert parts == {key: whole[key] for key in parts}
    assert len(parts) == 4


def test_seeds_and_prefixes_have_streams_of_their_own(model: Any, tokenizer: Any) -> None:
    def responses(**changes: Any) -> list[str]:
        drawn = generate(model, tokenizer, [make_request("a", "1+2=", 12, **changes)])
        return [rollout.response for rollout in drawn.values()]

    assert responses() == responses()
    assert sorted(responses()) != sorted(responses(seed=1))


def test_first_two_tokens_follow_the_exact_joint_distribution(model: Any, tokenizer: Any) -> None:
    request = make_request("a", "1+2=", 6000, max_new_tokens=2, top_p=0.7, temperature=0.8)
    drawn = generate(model, tokenizer, [request])
    counts = Counter(rollout.response_token_ids for rollout in drawn.values())
    ids = prompt_ids(tokenizer, "1+2=")

    def probabilities(after: list[int]) -> list[float]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids + after])).logits[0, -1].double().numpy()
        weights = naive_weights(logits, request.sampling)
        return [weight / sum(weights) for weight in weights]

    expected: dict[tuple[int, ...], float] = {}
    for first, p in enumerate(probabilities([])):
        if first == END and p:
            expected[first,] = p
        elif p:
            expected |= {(first, second): p * q for second, q in enumerate(probabilities([first])) if q}
    assert set(counts) <= set(expected)
    assert len(expected) > 8
    chi_square = sum((counts[key] - 6000 * p) ** 2 / (6000 * p) for key, p in expected.items())
    freedom = len(expected) - 1
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_samples_that_agree_share_the_work(model: Any, tokenizer: Any) -> None:
    generator = TransformersGenerator(model, tokenizer, name="tiny")
    rollouts = list(generator.generate([make_request("a", "1+2=", 50, temperature=0.0)]))
    length = rollouts[0].extras["num_generated_tokens"]  # type: ignore[union-attr]
    prompt_length = len(prompt_ids(tokenizer, "1+2="))
    assert generator.ledger.generated_tokens == 50 * length
    assert generator.ledger.prompt_tokens == prompt_length
    assert generator.computed_tokens == prompt_length + length - 1
    assert generator.ledger.model_parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("prefix", ["3", "1+2=3\n", "1+2=3\n#"])
def test_a_prefix_is_continued(model: Any, tokenizer: Any, prefix: str) -> None:
    request = make_request("a", "1+2=", 4, prefix)
    drawn = generate(
        model, tokenizer, [request, make_request("a", "1+2=", 4), make_request("b", "5", 2, prefix)]
    )
    assert len(drawn) == 10
    mine = [r for r in drawn.values() if r.prompt_id == "a" and r.id.count(":") == 2]
    assert len(mine) == 4
    for rollout in mine:
        assert rollout.response.startswith(prefix)
        expected = naive_sample(model, prompt_ids(tokenizer, "1+2=", prefix), request, rollout.index)
        prefix_ids = tuple(tokenizer(prefix, add_special_tokens=False)["input_ids"])
        assert rollout.response_token_ids == prefix_ids + expected


def test_recorded_tokens_decode_to_the_response(make_model: Any, make_tokenizer: Any) -> None:
    byte_pair_model, byte_pair_tokenizer = make_model(), make_tokenizer()
    requests = [make_request("a", "step one", 40, "the ans", max_new_tokens=20), make_request("b", "two", 40)]
    drawn = generate(byte_pair_model, byte_pair_tokenizer, requests)
    recorded = [r for r in drawn.values() if r.response_token_ids is not None]
    assert len(recorded) > 60
    for rollout in recorded:
        decoded = byte_pair_tokenizer.decode(rollout.response_token_ids, skip_special_tokens=True)
        assert decoded == rollout.response
        assert rollout.tokenizer == "hash"


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_stop_strings_may_lie_across_tokens(make_model: Any, make_tokenizer: Any, length: int) -> None:
    byte_pair_model, byte_pair_tokenizer = make_model(), make_tokenizer()
    requests = [make_request("a", "step one", 60, max_new_tokens=24, temperature=1.5)]
    free = generate(byte_pair_model, byte_pair_tokenizer, requests)
    longest = sorted((rollout.response for rollout in free.values()), key=len)[-4:]
    stop = tuple(text[place : place + length] for place, text in zip((3, 8, 9, 13), longest, strict=True))
    stopping = [replace(r, sampling=replace(r.sampling, stop=stop)) for r in requests]
    stopped = generate(byte_pair_model, byte_pair_tokenizer, stopping)
    num_cut = 0
    for key, rollout in stopped.items():
        places = [place for text in stop if (place := free[key].response.find(text)) >= 0]
        if places:
            num_cut += 1
            assert rollout.response == free[key].response[: min(places)]
            assert rollout.finish_reason == "stop"
            assert rollout.response_token_ids is None
        else:
            assert rollout.response == free[key].response
            assert rollout.finish_reason == free[key].finish_reason
    assert num_cut >= 3


def test_a_stop_string_ends_the_drawing_and_is_looked_for_after_the_prefix_only(
    model: Any, tokenizer: Any
) -> None:
    generator = TransformersGenerator(model, tokenizer, name="tiny")
    request = make_request("a", "1+2=", 30, "1\n2\n", max_new_tokens=40, stop=("3",))
    rollouts = [r for r in generator.generate([request]) if isinstance(r, Rollout)]
    assert all(r.response.startswith("1\n2\n") and "3" not in r.response[4:] for r in rollouts)
    drawn = generator.ledger.generated_tokens
    list(generator.generate([replace(request, sampling=replace(request.sampling, stop=()))]))
    assert drawn < generator.ledger.generated_tokens - drawn


def test_longrope_draws_no_further_than_its_frequencies_stay_the_same(tokenizer: Any) -> None:
    """One text longer than the original length would change the other rows of its batch."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        "phi3",
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        eos_token_id=END,
        pad_token_id=0,
        bos_token_id=0,
        max_position_embeddings=96,
        original_max_position_embeddings=20,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [2.0, 3.0, 1.5, 4.0],
            "original_max_position_embeddings": 20,
        },
    )
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8.0)
    requests = [make_request(name, text, 4, max_new_tokens=30) for name, text in PROMPTS.items()]
    drawn = generate(model, tokenizer, requests, BatchLimits(samples=7))
    lengths = set[int]()
    for request, index in product(requests, range(4)):
        opening = prompt_ids(tokenizer, PROMPTS[request.prompt.id])
        ids = drawn[request.prompt.id, index, f"{request.prompt.id}:{index}"].response_token_ids
        assert ids is not None
        lengths.add(len(opening) + len(ids))
        sampling = replace(request.sampling, max_new_tokens=len(ids))
        assert ids == naive_sample(model, opening, replace(request, sampling=sampling), index)
    assert max(lengths) == 20


def test_the_limit_and_the_context_cut_responses_off(model: Any, tokenizer: Any) -> None:
    long = make_request("a", "1+2=", 30, max_new_tokens=500)
    short = make_request("b", "1+2=", 30, max_new_tokens=2)
    drawn = generate(model, tokenizer, [long, short])
    context = model.config.max_position_embeddings - len(prompt_ids(tokenizer, "1+2="))
    for rollout in drawn.values():
        limit = context if rollout.prompt_id == "a" else 2
        ids = rollout.response_token_ids
        assert ids is not None
        assert len(ids) <= limit
        assert (rollout.finish_reason == "length") == (END not in ids)
        assert rollout.finish_reason == "stop" or len(ids) == limit


def test_rollouts_say_where_they_come_from(model: Any, tokenizer: Any) -> None:
    drawn = generate(model, tokenizer, [make_request("a", "1+2=", 1, top_p=0.9, seed=5)])
    rollout = drawn["a", 0, "a:0"]
    assert rollout.policy == "tiny"
    assert rollout.answer == "4"
    assert rollout.extras["level"] == 2
    assert rollout.sampling == {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 12, "seed": 5}


def test_a_prompt_that_cannot_be_run_fails_alone(model: Any, tokenizer: Any) -> None:
    refused = replace(make_request("c", "", 3), prompt=Prompt(id="c", prompt="1+2=", extras={"tools": "add"}))
    requests = [
        make_request("a", "1+2=", 2),
        make_request("b", "1" * 200, 2),
        refused,
        make_request("d", "1+2=", 2),
    ]
    results = list(TransformersGenerator(model, tokenizer, name="tiny").generate(requests))
    failures = {r.prompt_id: r for r in results if isinstance(r, GenerationFailure)}
    assert failures.keys() == {"b", "c"}
    assert "203 tokens, but the model's context is only 96" in failures["b"].reason
    assert failures["c"].indices == (0, 1, 2)
    assert "tools" in failures["c"].reason
    assert sum(isinstance(r, Rollout) for r in results) == 4


def test_requests_are_read_as_they_are_needed(model: Any, tokenizer: Any) -> None:
    taken = 0

    def endless() -> Iterable[GenerationRequest]:
        nonlocal taken
        while True:
            taken += 1
            yield make_request(str(taken), "1+2=", 2)

    stream = TransformersGenerator(model, tokenizer, name="t", limits=BatchLimits(samples=4)).generate(
        endless()
    )
    for _ in range(50):
        next(stream)
    assert taken < 80


def test_a_model_with_another_kind_of_state_is_refused(tokenizer: Any) -> None:
    config = AutoConfig.for_model("mamba", vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(CheckpointError, match="cannot fork"):
        TransformersGenerator(model, tokenizer, name="tiny")


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.0}, {"top_p": 0.8, "seed": 5}])
def test_steps_that_go_on_from_what_is_held_are_those_drawn_from_the_start(
    model: Any, tokenizer: Any, sampling: dict[str, Any]
) -> None:
    stateless, whole = by_steps(model, tokenizer, None, sampling)
    held, remembering = by_steps(model, tokenizer, PrefixStore(10_000), sampling)
    assert [(r.id, r.response, r.response_token_ids, r.finish_reason) for r in held] == [
        (r.id, r.response, r.response_token_ids, r.finish_reason) for r in stateless
    ]
    assert len({r.response for r in held}) > 10
    assert remembering.ledger == whole.ledger
    assert remembering.computed_tokens < 0.5 * whole.computed_tokens


def test_a_small_store_changes_nothing_that_is_drawn(model: Any, tokenizer: Any) -> None:
    stateless, _ = by_steps(model, tokenizer, None, {})
    forgetful, _ = by_steps(model, tokenizer, PrefixStore(7), {})
    assert [r.response for r in forgetful] == [r.response for r in stateless]


def test_a_kept_stop_string_is_the_end_of_a_step(model: Any, tokenizer: Any) -> None:
    drawn, _ = by_steps(model, tokenizer, None, {"temperature": 1.6}, rounds=1)
    assert {rollout.finish_reason for rollout in drawn} == {"stop", "length"}
    for rollout in drawn:
        assert rollout.sampling is not None
        assert rollout.sampling["keep_stop"] is True
        if rollout.finish_reason == "stop" and rollout.response_token_ids[-1] != END:  # type: ignore[index]
            assert rollout.response[-1] in "\n="
            assert not set(rollout.response[:-1]) & set("\n=")


def test_a_stop_string_that_is_a_special_token_is_refused_unless_it_ends_the_turn(
    make_model: Any, make_tokenizer: Any
) -> None:
    def drawn(stop: str) -> Any:
        return generate(make_model(), make_tokenizer(), [make_request("a", "1+2=", 1, stop=(stop,))])

    assert drawn("<|im_end|>")
    with pytest.raises(UserError, match="--stop: 'x<|im_start|>' holds a special token".replace("|", r"\|")):
        drawn("x<|im_start|>")
