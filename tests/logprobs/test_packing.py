from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.logprobs import TokenBatch, pack, pad
from stepcredit.logprobs.packing import batches_by_length
from stepcredit.types import Encoded

ENCODED = [Encoded((5, 6, 7, 8), 2), Encoded((5, 9), 1), Encoded((1, 2, 3), 3)]


def sources(batch: TokenBatch) -> list[int]:
    """Token at each scored token's source position: the one before it."""
    tokens: list[int] = batch.input_ids.flatten()[batch.source_index].tolist()
    return tokens


@pytest.mark.parametrize(
    "batch",
    [pad(ENCODED), pad(ENCODED, side="left"), pack(ENCODED), pack(ENCODED, share_prefixes=False)],
    ids=["right", "left", "shared", "packed"],
)
def test_each_scored_token_is_predicted_from_the_token_before_it(batch: TokenBatch) -> None:
    assert batch.targets.tolist() == [7, 8, 9]
    assert sources(batch) == [6, 7, 5]
    assert batch.sequence_index.tolist() == [0, 0, 1]
    assert batch.num_scored == (2, 1, 0)
    assert batch.position_ids.flatten()[batch.source_index].tolist() == [1, 2, 0]


def test_padding_sides() -> None:
    right, left = pad(ENCODED, pad_token_id=4), pad(ENCODED, pad_token_id=4, side="left")
    assert right.input_ids.tolist() == [[5, 6, 7, 8], [5, 9, 4, 4], [1, 2, 3, 4]]
    assert left.input_ids.tolist() == [[5, 6, 7, 8], [4, 4, 5, 9], [4, 1, 2, 3]]
    assert right.attention_mask is not None
    assert left.attention_mask is not None
    assert right.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert left.position_ids.tolist() == [[0, 1, 2, 3], [0, 0, 0, 1], [0, 0, 1, 2]]


def test_packing_computes_no_token_twice() -> None:
    prompt = tuple(range(20))
    batch = pack([Encoded((*prompt, 30, 31), 20), Encoded((*prompt, 40), 20)])
    assert batch.num_computed == 23
    assert batch.segments is not None
    assert batch.segments.lengths == (20, 2, 1)
    assert batch.segments.contexts == ((), (0,), (0,))
    assert batch.position_ids.tolist() == [[*range(20), 20, 21, 20]]


def test_values_are_split_by_sequence() -> None:
    batch = pad(ENCODED)
    per_token = torch.tensor([1.0, 2.0, 4.0])
    assert [part.tolist() for part in batch.split(per_token)] == [[1.0, 2.0], [4.0], []]


def test_moving_keeps_what_is_no_tensor() -> None:
    batch = pack(ENCODED)
    moved = batch.to("meta")
    assert moved.input_ids.device.type == moved.targets.device.type == "meta"
    assert (moved.segments, moved.num_scored) == (batch.segments, batch.num_scored)


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 100))
def test_length_batches_hold_every_sequence_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(batches_by_length(lengths, budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[index] for index in batch) * len(batch) <= budget
