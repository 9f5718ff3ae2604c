from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
import torch
from tests.logprobs.naive import naive_token_log_probs
from tests.logprobs.tiny_models import NOT_PACKABLE, PACKABLE, prompt_groups, tiny_model
from torch import Tensor, nn

from stepcredit.errors import CheckpointError
from stepcredit.logprobs import TokenBatch, enable_log_probs, enable_packing, pack, pad, token_log_probs
from stepcredit.logprobs.forward import logits_at
from stepcredit.logprobs.support import agree_but_for_rounding

SEQUENCES = prompt_groups()
Layout = Literal["right", "left", "packed", "shared"]


def batch_of(layout: Layout) -> TokenBatch:
    if layout in ("right", "left"):
        return pad(SEQUENCES, side=layout, pad_token_id=3)
    return pack(SEQUENCES, share_prefixes=layout == "shared")


def gradients(model: nn.Module, log_probs: Tensor) -> dict[str, Tensor]:
    """Gradients of a sum in which no two tokens weigh the same."""
    weights = torch.linspace(-1, 2, len(log_probs), dtype=log_probs.dtype)
    model.zero_grad()
    (log_probs * weights).sum().backward()
    return {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def assert_equal_to_naive(model: Any, layout: Layout, chunk_size: int | None = 7) -> None:
    oracle = copy.deepcopy(model)
    expected = torch.cat(naive_token_log_probs(oracle, SEQUENCES))
    if layout in ("packed", "shared"):
        assert enable_packing(model)
    actual = token_log_probs(model, batch_of(layout), chunk_size=chunk_size)
    exact = model.dtype == torch.float64
    tolerance = 1e-9 if exact else 2e-5
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)
    wanted, got = gradients(oracle, expected), gradients(model, actual)
    assert wanted.keys() == got.keys()
    for name in wanted:
        # Norms round to float32 inside, also in a float64 model. A shared token's gradients are summed before
        # that rounding, separate ones after it: equal to float32's precision, not float64's.
        rounded = layout == "shared" or "norm" in name
        precision = (1e-6 if rounded else 1e-10) if exact else 2e-5
        atol = precision * wanted[name].abs().max().item()
        torch.testing.assert_close(got[name], wanted[name], rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("layout", ["right", "left", "packed", "shared"])
@pytest.mark.parametrize("family", PACKABLE)
def test_values_and_gradients_equal_whole_logits_one_by_one(family: str, layout: Layout) -> None:
    # Gemma 2's own masked attention gives NaN for padding in float64.
    dtype = torch.float32 if family == "gemma2" else torch.float64
    assert_equal_to_naive(tiny_model(family, dtype=dtype), layout)


@pytest.mark.parametrize("chunk_size", [1, 2, 13, 1000, None])
@pytest.mark.parametrize("family", ["llama-tied", "llama"])
def test_the_chunk_size_changes_nothing(family: str, chunk_size: int | None) -> None:
    assert_equal_to_naive(tiny_model(family, dtype=torch.float64), "shared", chunk_size)


@pytest.mark.parametrize("family", NOT_PACKABLE)
def test_models_that_cannot_pack_say_so_and_score_padded(family: str) -> None:
    model = tiny_model(family)
    before = model.config._attn_implementation
    assert not enable_packing(model)
    assert model.config._attn_implementation == before
    expected = torch.cat(naive_token_log_probs(model, SEQUENCES))
    actual = token_log_probs(model, batch_of("right"))
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-4)


def test_packing_needs_to_be_enabled() -> None:
    with pytest.raises(ValueError, match="enable_packing"):
        token_log_probs(tiny_model("llama"), pack(SEQUENCES))


@pytest.mark.parametrize("layout", ["right", "shared"])
def test_gradient_checkpointing_changes_nothing(layout: Layout) -> None:
    model = tiny_model("llama", dtype=torch.float64).train()
    model.gradient_checkpointing_enable()
    assert_equal_to_naive(model, layout)


def test_an_enabled_model_still_gives_logits_generates_and_saves(tmp_path: Any) -> None:
    model = tiny_model("llama")
    token_ids = torch.tensor([SEQUENCES[1].token_ids])
    logits = model(input_ids=token_ids).logits
    drawn = model.generate(token_ids, max_new_tokens=5, do_sample=False)
    enable_log_probs(model)
    assert enable_packing(model)
    torch.testing.assert_close(model(input_ids=token_ids).logits, logits)
    assert torch.equal(model.generate(token_ids, max_new_tokens=5, do_sample=False), drawn)
    model.save_pretrained(tmp_path)
    assert "stepcredit" not in (tmp_path / "config.json").read_text()
    assert torch.equal(type(model).from_pretrained(tmp_path)(input_ids=token_ids).logits, logits)


def test_a_deep_copy_of_an_enabled_model_runs_its_own_weights() -> None:
    model = tiny_model("llama", dtype=torch.float64)
    enable_log_probs(model)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(1.5)
    token_ids = torch.tensor([SEQUENCES[1].token_ids])
    assert not torch.allclose(copied(input_ids=token_ids).logits, model(input_ids=token_ids).logits)
    expected = torch.cat(naive_token_log_probs(copied, SEQUENCES))
    torch.testing.assert_close(token_log_probs(copied, batch_of("right")), expected, rtol=1e-9, atol=1e-9)


def test_a_head_that_does_more_than_we_know_is_computed_by_the_model_itself() -> None:
    model = tiny_model("llama", dtype=torch.float64)
    ordinary = model.forward

    def doubled(*args: Any, **kwargs: Any) -> Any:
        output = ordinary(*args, **kwargs)
        output.logits = output.logits * 2 + torch.linspace(0, 1, output.logits.shape[-1])
        return output

    model.forward = doubled
    expected = torch.cat(naive_token_log_probs(model, SEQUENCES))
    actual = token_log_probs(model, batch_of("right"))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ["llama-tied", "gemma2", "granite", "llama4_text", "electra"])
@pytest.mark.parametrize("tokens", [None, (5, 90, 2)])
def test_logits_at_some_places_are_the_models_own(family: str, tokens: tuple[int, ...] | None) -> None:
    model = tiny_model(family)
    batch = batch_of("right")
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    positions = torch.tensor([3, 70, 9, 3, 41] + [25] * 70)
    with torch.no_grad():
        expected = model(**inputs).logits.flatten(0, 1)[positions]
        actual = logits_at(model, positions, tokens=tokens, **inputs)
    wanted = expected if tokens is None else expected[:, list(tokens)]
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5)


def test_bfloat16_agrees_with_float32_to_its_precision() -> None:
    model = tiny_model("llama")
    expected = torch.cat(naive_token_log_probs(model, SEQUENCES))
    low = model.to(torch.bfloat16)
    assert enable_packing(low)
    for layout in ("right", "shared"):
        actual = token_log_probs(low, batch_of(layout))
        assert actual.dtype == torch.float32
        assert (actual - expected).abs().mean() < 0.05


def test_a_deep_model_in_bfloat16_packs_though_single_tokens_round_far() -> None:
    low = tiny_model("llama", seed=1, num_hidden_layers=24, dtype=torch.bfloat16)
    padded = token_log_probs(low, batch_of("right"))
    assert enable_packing(low)
    difference = token_log_probs(low, batch_of("shared")) - padded
    assert difference.square().mean().sqrt() < 0.25


def test_rounding_is_a_tokens_in_float32_the_mean_of_tokens_in_half_precision_and_never_nan() -> None:
    expected, apart, missing = torch.zeros(100), torch.zeros(100), torch.zeros(100)
    apart[3], missing[3] = 1.0, torch.nan
    assert agree_but_for_rounding(apart, expected, torch.bfloat16)
    assert not agree_but_for_rounding(apart, expected, torch.float32)
    assert not agree_but_for_rounding(expected + 0.3, expected, torch.bfloat16)
    for dtype in (torch.bfloat16, torch.float32):
        assert agree_but_for_rounding(expected + 5e-4, expected, dtype)
        assert not agree_but_for_rounding(missing, expected, dtype)


@pytest.mark.parametrize("layout", ["right", "shared"])
def test_peft_model_with_its_adapter(layout: Layout) -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny_model("llama", dtype=torch.float64)
    model = get_peft_model(
        base, LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    )
    model = model.double()
    expected = torch.cat(naive_token_log_probs(model, SEQUENCES))
    wanted = gradients(model, expected)
    enable_log_probs(model)
    if layout == "shared":
        assert enable_packing(model)
    actual = token_log_probs(model, batch_of(layout))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    got = gradients(model, actual)
    assert got.keys() == wanted.keys()
    assert all("lora" in name for name in got)
    for name in wanted:
        atol = 1e-6 * wanted[name].abs().max().item()
        torch.testing.assert_close(got[name], wanted[name], rtol=0, atol=atol)


def test_adapted_output_embedding_is_honoured() -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny_model("llama", dtype=torch.float64)
    model = get_peft_model(
        base, LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    ).double()
    expected = torch.cat(naive_token_log_probs(model, SEQUENCES))
    torch.testing.assert_close(token_log_probs(model, batch_of("right")), expected, rtol=1e-9, atol=1e-9)


def test_a_model_without_output_embedding_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no output embedding"):
        token_log_probs(tiny_model("llama").model, batch_of("right"))
