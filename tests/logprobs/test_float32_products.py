from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tests.logprobs.tiny_models import prompt_groups, tiny_model

from stepcredit.logprobs import LocalTokenLogProbs, float32_products
from stepcredit.logprobs.float32_products import computes_in_float32, fit_to_processor, needs_float32

SEQUENCES = prompt_groups()


@pytest.fixture(params=[True, False], ids=["lacks", "has"])
def lacks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(float32_products, "lacks_half_precision", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize("family", ["llama-tied", "llama", "gpt2", "gemma2"])
def test_numbers_are_those_of_the_rounded_weights_in_float32(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float32_products, "lacks_half_precision", lambda: True)
    monkeypatch.setattr(float32_products, "_WHOLE_WEIGHT", 300)  # heads in parts, layers whole
    rounded: Any = tiny_model(family).to(torch.bfloat16)
    twin = copy.deepcopy(rounded).float()
    model = fit_to_processor(rounded)
    assert computes_in_float32(model)
    for share_prefixes in (True, False):
        pairs = zip(
            LocalTokenLogProbs(model, weights_hash="", share_prefixes=share_prefixes).of(SEQUENCES),
            LocalTokenLogProbs(twin, weights_hash="", share_prefixes=share_prefixes).of(SEQUENCES),
            strict=True,
        )
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)


def test_large_weights_stay_in_their_format(lacks: bool) -> None:
    model = fit_to_processor(tiny_model("llama").to(torch.bfloat16))
    assert computes_in_float32(model) == lacks
    layer = model.model.layers[0]
    assert layer.mlp.up_proj.weight.dtype == model.model.embed_tokens.weight.dtype == torch.bfloat16
    assert layer.input_layernorm.weight.dtype == (torch.float32 if lacks else torch.bfloat16)


def test_only_half_precision_on_a_cpu_is_concerned(lacks: bool) -> None:
    assert needs_float32("bfloat16", "cpu") == needs_float32("float16", "cpu") == lacks
    assert not needs_float32("float32", "cpu")
    assert not needs_float32("bfloat16", "cuda")
    assert not computes_in_float32(fit_to_processor(tiny_model("llama")))


def test_rows_in_a_cache_say_how_they_were_computed() -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    before = LocalTokenLogProbs(model, weights_hash="").fingerprint
    float32_products.compute_in_float32(model)
    assert LocalTokenLogProbs(model, weights_hash="").fingerprint != before
