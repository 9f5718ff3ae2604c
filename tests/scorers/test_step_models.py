"""A prompt that responses share is computed once, whatever gives the scores, and the scores stay the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    LlamaPreTrainedModel,
    RobertaConfig,
    RobertaForTokenClassification,
)
from transformers import LlamaForTokenClassification as TokenClassifier

from stepcredit.logprobs import TokenBatch, pad
from stepcredit.logprobs.prefixes import prefix_tree
from stepcredit.scorers.heads import scored_logits
from stepcredit.scorers.label_tokens import read_label
from stepcredit.scorers.published_heads import HeadedModel
from stepcredit.scorers.step_models import ReadSteps, StepReader, read_logits
from stepcredit.types import Encoded

SIZES: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}


class OwnClassifier(LlamaPreTrainedModel):
    """A classifier as authors write them, that hands no keywords to its backbone."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        self.score = nn.Linear(config.hidden_size, 2)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any = None, **_: Any) -> Any:
        states = self.model(input_ids, attention_mask, position_ids, use_cache=False)[0]
        return SimpleNamespace(logits=self.score(states))


class WithoutKeywords(OwnClassifier):
    """It takes none either."""

    def forward(  # type: ignore[override]
        self, input_ids: Any, attention_mask: Any, position_ids: Any = None, use_cache: bool = False
    ) -> Any:
        return super().forward(input_ids, attention_mask, position_ids, use_cache=use_cache)


class OverTokens(OwnClassifier):
    """Its head runs over the tokens of a row."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.running = nn.GRU(config.hidden_size, config.hidden_size, batch_first=True)

    def forward(self, input_ids: Any, **inputs: Any) -> Any:  # type: ignore[override]
        states, _ = self.running(self.model(input_ids, **inputs)[0])
        return SimpleNamespace(logits=self.score(states))


def first_class(model: Any, batch: TokenBatch, positions: torch.Tensor) -> torch.Tensor:
    return read_logits(model, batch, positions)[:, 0]


def classifier() -> tuple[Any, ReadSteps]:
    return TokenClassifier(LlamaConfig(**SIZES)), first_class


def headed() -> tuple[Any, ReadSteps]:
    backbone = LlamaForCausalLM(LlamaConfig(**SIZES)).model
    return HeadedModel(backbone, nn.Linear(32, 2)), first_class


def label_tokens() -> tuple[Any, ReadSteps]:
    return LlamaForCausalLM(LlamaConfig(**SIZES)), partial(read_label, label_ids=(3, 5))


def responses() -> list[Encoded]:
    """Four to one prompt: two of them equal but for their steps, one with a step before all scored tokens."""
    source = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 64, (90,), generator=source).tolist()
    prompt = tuple(tokens[:30])
    return [
        Encoded((*prompt, *tokens[30:50]), 30, (7, 20)),
        Encoded((*prompt, *tokens[30:50]), 30, (2, 9, 20)),
        Encoded((*prompt, *tokens[60:90]), 30, (0, 12, 30)),
        Encoded((*prompt, *tokens[40:65]), 30, (5, 15), skipped=((38, 48),)),
    ]


@pytest.mark.parametrize("make", [classifier, headed, label_tokens])
def test_a_prompt_is_computed_once_and_scores_stay_the_same(
    make: Callable[[], tuple[Any, ReadSteps]],
) -> None:
    torch.manual_seed(1)
    model, read = make()
    model = model.double()
    computed: list[int] = []
    embeddings = model.get_input_embeddings()
    shared, alone = StepReader(model, read), StepReader(model, read, share_prefixes=False)
    shared.of(responses())  # here packing is tried on a few tokens
    embeddings.register_forward_hook(lambda module, inputs, output: computed.append(inputs[0].numel()))
    found = shared.of(responses())
    assert computed == [prefix_tree([item.token_ids for item in responses()]).num_tokens]
    for one, other in zip(found, alone.of(responses()), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)  # heads' outputs are float32
    assert [len(values) for values in found] == [2, 3, 3, 2]


def test_a_model_that_reads_both_ways_is_padded() -> None:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    model = BertForTokenClassification(BertConfig(**sizes)).eval()
    before = model.config._attn_implementation
    found = StepReader(model, first_class).of(responses())
    assert model.config._attn_implementation == before
    for item, values in zip(responses(), found, strict=True):
        (alone,) = StepReader(model, first_class, share_prefixes=False).of([item])
        np.testing.assert_allclose(values, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [OwnClassifier, WithoutKeywords, OverTokens])
def test_a_classifier_that_cannot_take_packed_rows_is_padded(kind: Callable[[LlamaConfig], Any]) -> None:
    torch.manual_seed(1)
    model = kind(LlamaConfig(**SIZES)).double()
    found = StepReader(model, first_class).of(responses())
    for item, values in zip(responses(), found, strict=True):
        (alone,) = StepReader(model, first_class, share_prefixes=False).of([item])
        np.testing.assert_allclose(values, alone, rtol=0, atol=1e-6)


def test_half_precision_does_not_hide_that_a_model_looks_ahead() -> None:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.05}
    model = BertForTokenClassification(BertConfig(**sizes)).bfloat16()
    found = StepReader(model, first_class).of(responses())
    padded = StepReader(model, first_class, share_prefixes=False).of(responses())
    for one, other in zip(found, padded, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_head_is_trained_on_what_is_read_where_a_model_counts_positions_in_its_own_way() -> None:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
    model = RobertaForTokenClassification(RobertaConfig(**sizes, pad_token_id=1)).eval()  # from 2
    source = torch.Generator().manual_seed(0)
    tokens = tuple(torch.randint(2, 64, (30,), generator=source).tolist())
    encoded = [Encoded(tokens, 10, tuple(range(1, 21))), Encoded(tokens[5:20], 5, tuple(range(1, 11)))]
    trained = scored_logits(model, pad(encoded))[:, 0].detach().numpy()
    read = StepReader(model, first_class).of(encoded)
    np.testing.assert_allclose(trained, np.concatenate(read), rtol=0, atol=1e-5)
