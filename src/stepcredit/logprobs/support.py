"""Which models can run packed batches: found out by trying, not by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stepcredit.logprobs.forward import causal_lm_of, inference_log_probs, input_device
from stepcredit.logprobs.packing import pack, pad
from stepcredit.logprobs.segments import IMPLEMENTATION
from stepcredit.types import Encoded

_REPLACEABLE = ("sdpa", "eager", IMPLEMENTATION)
_KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_LOW_PRECISION_TOLERANCE = 0.25
"""Nats between two orders of the same half-precision sums; a wrong mask is caught by leakage."""


def agree_but_for_rounding(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether log-probabilities differ by no more than the order of a model's sums explains.

    Args:
        dtype: Of the model. In float32 and float64 every token has to agree; in half precision the root
            mean square over the tokens counts, because single ones of a deep model go far beyond it.
    """
    difference = (found - expected).double()
    if dtype in _TOLERANCE:
        return bool(difference.abs().max() <= _TOLERANCE[dtype])
    return bool(difference.square().mean().sqrt() <= _LOW_PRECISION_TOLERANCE)


def enable_packing(model: nn.Module) -> bool:
    """Switch a model to segment attention where it then computes what it computed before.

    The test runs a few tokens through the model: packed and padded must agree, and a packed sequence must
    not feel another one's tokens. State-space and recurrent models, attention with biases of its own and
    models that hand no keywords to their attention fail it and stay as they are.

    Returns:
        Whether packed batches may be used.
    """
    causal_lm = causal_lm_of(model)
    if getattr(causal_lm, "_stepcredit_packs", None) is None:
        causal_lm._stepcredit_packs = _try_packing(model, causal_lm)
    elif causal_lm._stepcredit_packs:
        causal_lm.set_attn_implementation(IMPLEMENTATION)
    return bool(causal_lm._stepcredit_packs)


@contextlib.contextmanager
def packing_enabled(model: nn.Module) -> Iterator[bool]:
    """Enable packing for the time of a ``with``; yields whether it may be used."""
    causal_lm = causal_lm_of(model)
    before = causal_lm.config._attn_implementation
    try:
        yield enable_packing(model)
    finally:
        if causal_lm.config._attn_implementation != before:
            causal_lm.set_attn_implementation(before)


def _try_packing(model: nn.Module, causal_lm: Any) -> bool:
    before = causal_lm.config._attn_implementation
    if before not in _REPLACEABLE or not causal_lm._can_set_attn_implementation():
        return False
    # Chunks and top-k indices hide tokens only from texts that are longer than the probe.
    if not _KNOWN_LAYERS.issuperset(getattr(causal_lm.config.get_text_config(), "layer_types", None) or ()):
        return False
    sequences = _probe(causal_lm.config.get_text_config().vocab_size)
    expected = _padded(model, sequences)
    causal_lm.set_attn_implementation(IMPLEMENTATION)
    try:
        works = _agrees(model, sequences, expected)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        works = False
    if not works:
        causal_lm.set_attn_implementation(before)
    return works


def _probe(vocabulary: int) -> list[Encoded]:
    """Three sequences: two with a long common prefix, one without."""
    tokens = [(7 * position + 3) % vocabulary for position in range(64)]
    shared = tokens[:20]
    return [
        Encoded((*shared, *tokens[20:26]), 20),
        Encoded((*shared, *tokens[30:41]), 20),
        Encoded(tuple(tokens[41:53]), 5),
    ]


def _padded(model: nn.Module, sequences: Sequence[Encoded]) -> Tensor:
    return inference_log_probs(model, pad(sequences).to(input_device(model)))


def _agrees(model: nn.Module, sequences: Sequence[Encoded], expected: Tensor) -> bool:
    batch = pack(sequences).to(input_device(model))
    packed = inference_log_probs(model, batch)
    if not agree_but_for_rounding(packed, expected, next(model.parameters()).dtype):
        return False
    # Other tokens in the first sequence's own segment: the later sequences must not notice, to the last bit.
    # The first scored token is predicted from the shared segment, the others from the sequence's own.
    num_first = sequences[0].num_scored
    own = batch.source_index[1:num_first]
    batch.input_ids[0, own] = batch.input_ids[0, own].flip(0)
    disturbed = inference_log_probs(model, batch)
    return torch.equal(packed[num_first:], disturbed[num_first:])
