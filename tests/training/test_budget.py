"""Tokens of a forward pass, chosen from the device's memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stepcredit.logprobs import enable_packing
from stepcredit.training import budget
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import Example, TrainingSet
from stepcredit.training.recomputing import recompute_cheap
from stepcredit.types import Encoded

MIB = 2**20


def llama() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, pad_token_id=0)).eval()


def one_prompt(responses: int) -> TrainingSet:
    """So many responses of 1,000 tokens to a prompt of 500."""
    examples = tuple(
        Example(
            id=str(number),
            prompt_id="p",
            encoded=Encoded((*[1] * 500, *[2 + number] * 1000), 500),
            label=float(number % 2),
        )
        for number in range(responses)
    )
    return TrainingSet(examples=examples, units=tuple((row,) for row in range(responses)))


def chosen(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, *, memory: float = 2**40, **fields: Any
) -> int:
    monkeypatch.setattr(budget, "device_memory", lambda _: round(memory))
    data = fields.pop("data", one_prompt(4))
    return budget.tokens_per_forward(llama(), data, config, packed=fields.pop("packed", True))


def test_with_room_it_is_the_usual_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(TrainConfig(), monkeypatch) == 2048


def test_what_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(TrainConfig(tokens_per_forward=77), monkeypatch, memory=1) == 77


def test_a_prompts_group_gets_room(monkeypatch: pytest.MonkeyPatch) -> None:
    grouped = TrainConfig(group_prompts=True)
    assert chosen(grouped, monkeypatch) == 500 + 4 * 1000
    assert chosen(grouped, monkeypatch, packed=False) == 4 * 1500
    assert chosen(grouped, monkeypatch, data=one_prompt(1)) == 2048


def test_short_memory_makes_small_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [chosen(TrainConfig(), monkeypatch, memory=memory * MIB) for memory in (2, 8, 16, 64)]
    assert sizes[0] == 256
    assert sizes == sorted(sizes)
    assert 256 < sizes[1] < sizes[2] < 2048 == sizes[3]


def test_states_and_cast_weights_take_their_part(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = chosen(TrainConfig(), monkeypatch, memory=12 * MIB)
    assert chosen(TrainConfig(precision="bfloat16"), monkeypatch, memory=12 * MIB) != trained
    frozen = llama().requires_grad_(False)
    frozen.model.norm.weight.requires_grad_(True)
    assert budget._states(frozen, TrainConfig()) < budget._states(llama(), TrainConfig()) / 3


def test_a_cpus_passes_are_modest_beside_a_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model, config = llama(), TrainConfig()
    per_token = budget._token_bytes(model, config)
    monkeypatch.setattr(budget, "_MODEST", 1000 * per_token)
    assert chosen(config, monkeypatch) == 1000
    assert chosen(TrainConfig(group_prompts=True), monkeypatch) == 500 + 4 * 1000
    monkeypatch.setattr(budget, "_MODEST", 0)
    assert chosen(config, monkeypatch) == max(256, budget._states(model, config) // 2 // per_token)


def is_short(config: TrainConfig, monkeypatch: pytest.MonkeyPatch, *, memory: float) -> bool:
    monkeypatch.setattr(budget, "device_memory", lambda _: round(memory))
    return budget.is_short_of_memory(llama(), one_prompt(4), config, packed=True)


def test_memory_is_short_where_a_pass_of_the_wanted_size_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, grouped = llama(), TrainConfig(group_prompts=True)
    per_token, states = budget._token_bytes(model, grouped), budget._states(model, grouped)
    for config, tokens in ((grouped, 4500), (TrainConfig(), 2048), (TrainConfig(tokens_per_forward=77), 77)):
        needed = (states + tokens * per_token) / budget._SHARE
        assert not is_short(config, monkeypatch, memory=1.01 * needed)
        assert is_short(config, monkeypatch, memory=0.99 * needed)


def test_a_token_takes_what_a_pass_keeps_for_it() -> None:
    model = llama()
    measured = budget._token_bytes(model, TrainConfig())
    # Of each layer, at least: inputs, norms and attention; gate, its activation, up and their product.
    least = 2 * 4 * (4 * 64 + 4 * 128)
    assert least < measured / 1.5 < 3 * least
    assert all(weight.grad is None for weight in model.parameters())
    assert not model.training
    assert budget._token_bytes(model, TrainConfig(gradient_checkpointing=True)) < measured / 5
    assert enable_packing(model)
    assert recompute_cheap(model)
    assert measured / 2 < budget._token_bytes(model, TrainConfig()) < measured


def test_the_machines_memory_is_known() -> None:
    assert 2**28 < budget.device_memory(torch.device("cpu")) < 2**46
