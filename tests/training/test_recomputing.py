"""Recomputing what is cheap: the same gradient to the last bit, with less kept for the backward pass."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from stepcredit.logprobs import enable_packing, pack, token_log_probs
from stepcredit.training import budget
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import Example, TrainingSet
from stepcredit.training.recomputing import recompute_cheap, recompute_if_short_of_memory
from stepcredit.types import Encoded


def llama() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 96}
    sizes |= {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, pad_token_id=0))


def gpt2() -> Any:
    """With dropout, which must be the same when it is computed again."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1, attn_pdrop=0.0))


def in_python() -> dict[int, Tensor]:
    """All tensors that Python holds, by where their values lie."""
    tensors: dict[int, Tensor] = {}
    for thing in gc.get_objects():
        if isinstance(thing, Tensor):
            with contextlib.suppress(RuntimeError):  # of tensors without values, which other tests left
                tensors[thing.untyped_storage().data_ptr()] = thing.detach()
    return tensors


def gradients(model: Any, *, bfloat16: bool) -> tuple[int, list[Tensor]]:
    """Bytes kept for the backward pass, and what comes of it."""
    source = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 64, (60,), generator=source).tolist()
    batch = pack([Encoded((*tokens[:20], *tokens[20:40]), 20), Encoded((*tokens[:20], *tokens[40:]), 20)])
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    model.train()
    model.zero_grad()
    there_before = set(in_python())
    torch.manual_seed(2)
    casts = torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext()
    with casts, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = token_log_probs(model, batch).sum()
    # What is kept to be used again lies in tensors of Python, what autograd keeps does not.
    kept |= in_python()
    num_bytes = sum(
        tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in there_before
    )
    kept.clear()
    loss.backward()
    return num_bytes, [weight.grad.clone() for weight in model.parameters()]


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_gradients_are_the_same_and_less_is_kept(make: Any, bfloat16: bool) -> None:
    model = make()
    assert enable_packing(model)
    before, expected = gradients(model, bfloat16=bfloat16)
    assert recompute_cheap(model)
    after, computed = gradients(model, bfloat16=bfloat16)
    assert all(torch.equal(one, other) for one, other in zip(computed, expected, strict=True))
    assert after < 0.75 * before


def test_experts_whose_load_is_asked_for_are_recomputed() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = MixtralForCausalLM(MixtralConfig(**sizes, num_local_experts=4, output_router_logits=True))
    assert enable_packing(model)
    assert recompute_cheap(model)


def test_a_model_whose_layers_change_what_is_kept_stays_as_it_is() -> None:
    model = llama()
    assert enable_packing(model)
    projection = model.model.layers[0].mlp.gate_proj
    projection.register_forward_hook(lambda module, inputs, output: output.mul_(0.5))
    assert not recompute_cheap(model)
    assert not model.is_activation_checkpointing
    assert all(weight.grad is None for weight in model.parameters())
    _, computed = gradients(model, bfloat16=False)
    assert all(torch.isfinite(gradient).all() for gradient in computed)


@pytest.mark.parametrize(
    ("memory", "config", "packed", "recomputes"),
    [
        (2**40, TrainConfig(), True, False),
        (2**20, TrainConfig(), True, True),
        (2**20, TrainConfig(), False, False),
        (2**20, TrainConfig(gradient_checkpointing=True), True, False),
    ],
)
def test_it_is_done_where_memory_is_short(
    memory: int, config: TrainConfig, packed: bool, recomputes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "device_memory", lambda _: memory)
    model = llama()
    assert enable_packing(model)
    examples = (Example(id="0", prompt_id="p", encoded=Encoded((1, 2, 3), 1), label=1.0),)
    data = TrainingSet(examples=examples, units=((0,),))
    assert recompute_if_short_of_memory(model, data, config, packed=packed) == recomputes
    assert model.is_activation_checkpointing == recomputes
