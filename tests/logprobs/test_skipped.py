"""Tokens between the assistant's turns are read and not scored, whoever computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from tests.logprobs.naive import naive_token_log_probs
from tests.logprobs.test_remote import ModelServer
from tests.logprobs.test_remote import server as server
from tests.logprobs.tiny_models import tiny_model

from stepcredit.encoding import read_positions
from stepcredit.keyvalues import PrefixStore
from stepcredit.logprobs import (
    CachedTokenLogProbs,
    LocalTokenLogProbs,
    TokenBatch,
    enable_packing,
    pack,
    pad,
    token_log_probs,
)
from stepcredit.logprobs.growing import GrowingTokenLogProbs
from stepcredit.logprobs.remote import INTERFACES, RemoteTokenLogProbs
from stepcredit.types import Encoded

TOKENS = tuple(range(5, 17))
SEQUENCES = [
    Encoded(TOKENS, 3, (2, 4, 5), ((5, 8), (9, 11))),
    Encoded(TOKENS, 3, (9,)),
    Encoded(TOKENS, 3, (5,), ((4, 8),)),
    Encoded((*TOKENS[:9], 40, 41), 2, (3,), ((3, 9),)),
]
PLACES = [[3, 4, 8, 11], list(range(3, 12)), [3, 8, 9, 10, 11], [2, 9, 10]]


def expected(model: Any) -> list[np.ndarray[Any, Any]]:
    """By reading each sequence whole, in the model's own precision."""
    wholes = naive_token_log_probs(model, [Encoded(item.token_ids, 1) for item in SEQUENCES])
    return [
        whole.detach().numpy()[np.array(places) - 1] for whole, places in zip(wholes, PLACES, strict=True)
    ]


def test_which_tokens_are_scored() -> None:
    for item, places in zip(SEQUENCES, PLACES, strict=True):
        assert list(item.scored_places) == places
        assert item.scored_ids == tuple(item.token_ids[place] for place in places)
        assert item.num_scored == len(places)
    assert read_positions(Encoded(TOKENS, 3, (0, 2, 3, 4), ((5, 8), (9, 11)))) == (2, 4, 8, 11)


@pytest.mark.parametrize("layout", ["right", "left", "packed", "shared"])
def test_values_and_gradients_equal_whole_logits(
    layout: Literal["right", "left", "packed", "shared"],
) -> None:
    model, oracle = tiny_model("llama", dtype=torch.float64), tiny_model("llama", dtype=torch.float64)
    batch: TokenBatch
    if layout in ("packed", "shared"):
        assert enable_packing(model)
        batch = pack(SEQUENCES, share_prefixes=layout == "shared")
    else:
        batch = pad(SEQUENCES, side=layout)  # type: ignore[arg-type]
    values = token_log_probs(model, batch, chunk_size=4)
    np.testing.assert_allclose(values.detach().numpy(), np.concatenate(expected(oracle)), atol=1e-9)
    assert [len(part) for part in batch.split(values)] == [len(places) for places in PLACES]
    whole = naive_token_log_probs(oracle, [Encoded(item.token_ids, 1) for item in SEQUENCES])
    torch.stack(
        [part[torch.tensor(places) - 1].sum() for part, places in zip(whole, PLACES, strict=True)]
    ).sum().backward()
    values.sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), oracle.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        scale = theirs.grad.abs().max().item()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-6 * scale, msg=name)


def test_local_growing_and_cached_sources(tmp_path: Path) -> None:
    model = tiny_model("llama", dtype=torch.float64)
    local = LocalTokenLogProbs(model, weights_hash="weights")
    growing = GrowingTokenLogProbs(local, PrefixStore(10_000))
    for source in (
        local,
        growing,
        CachedTokenLogProbs(local, tmp_path),
        CachedTokenLogProbs(local, tmp_path),
    ):
        for ours, right in zip(source.of(SEQUENCES), expected(model), strict=True):
            np.testing.assert_allclose(ours, right, rtol=0, atol=1e-5)


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_server(interface: str, server: ModelServer) -> None:
    source = RemoteTokenLogProbs(server.url, "m", interface=interface)
    for ours, right in zip(source.of(SEQUENCES), expected(server.model), strict=True):
        np.testing.assert_allclose(ours, right, rtol=0, atol=1e-5)
