"""Which models can run packed batches: found out by trying, not by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from stepcredit.logprobs.forward import forward_inputs, inference_log_probs, input_device, unwrapped
from stepcredit.logprobs.packing import TokenBatch, pack, pad
from stepcredit.logprobs.segments import IMPLEMENTATION
from stepcredit.types import Encoded

_REPLACEABLE = ("sdpa", "eager", IMPLEMENTATION)
_KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_SMALL = 1e-30
"""Keeps the size of outputs that are all zero from dividing by zero."""
_LOW_PRECISION_TOLERANCE = 0.25
"""Nats, or shares of the outputs' size, between two orders of the same half-precision sums; a wrong mask is
caught by leakage."""


def agree_but_for_rounding(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether log-probabilities, or scaled outputs, differ by no more than the order of sums explains.

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
    not feel another one's tokens. Compared are log-probabilities or, of a model with another head, its last
    states and the head's outputs. State-space and recurrent models, those that look ahead, attention with
    biases of its own, sliding windows that only the mask knows of, heads that look at more than one token and
    models that hand no keywords to their attention fail it and stay as they are.

    Returns:
        Whether packed batches may be used.
    """
    network = unwrapped(model)
    if getattr(network, "_stepcredit_packs", None) is None:
        network._stepcredit_packs = _try_packing(model, network)
    elif network._stepcredit_packs:
        network.set_attn_implementation(IMPLEMENTATION)
    return bool(network._stepcredit_packs)


@contextlib.contextmanager
def packing_enabled(model: nn.Module) -> Iterator[bool]:
    """Enable packing for the time of a ``with``; yields whether it may be used."""
    network = unwrapped(model)
    before = network.config._attn_implementation
    try:
        yield enable_packing(model)
    finally:
        if network.config._attn_implementation != before:
            network.set_attn_implementation(before)


def _try_packing(model: nn.Module, network: Any) -> bool:
    before = network.config._attn_implementation
    if before not in _REPLACEABLE or not network._can_set_attn_implementation():
        return False
    # Chunks and top-k indices hide tokens only from texts that are longer than the probe.
    if not _KNOWN_LAYERS.issuperset(getattr(network.config.get_text_config(), "layer_types", None) or ()):
        return False
    try:
        sequences = _probe(network.config.get_text_config().vocab_size)
        expected = _outputs(model, pad(sequences))
        if _looks_ahead(model, sequences, expected):
            return False
        network.set_attn_implementation(IMPLEMENTATION)
        works = _agrees(model, sequences, expected)
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError):
        works = False
    if not works:
        network.set_attn_implementation(before)
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


@torch.no_grad()
def _outputs(model: nn.Module, batch: TokenBatch) -> list[Tensor]:
    """What a packed and a padded batch must agree in, by scored token."""
    batch = batch.to(input_device(model))
    network = unwrapped(model)
    if network.get_output_embeddings() is not None:
        return [inference_log_probs(model, batch)]
    was_training = model.training
    model.eval()
    try:
        inputs = forward_inputs(model, batch)
        # The states too, because a new head may be all zeros.
        found: list[Tensor] = [network.base_model(**inputs)[0], cast(Any, model)(**inputs).logits]
    finally:
        model.train(was_training)
    return [rows.flatten(0, 1).index_select(0, batch.source_index.to(rows.device)).double() for rows in found]


def _agrees(model: nn.Module, sequences: Sequence[Encoded], expected: Sequence[Tensor]) -> bool:
    batch = pack(sequences)
    packed = _outputs(model, batch)
    assert batch.segments is not None
    if _has_window(unwrapped(model).config.get_text_config()) and not any(batch.segments.windows):
        return False
    dtype = next(model.parameters()).dtype
    for found, known in zip(packed, expected, strict=True):
        # Log-probabilities have a unit; states and a head's outputs are compared as shares of their size.
        size = known.square().mean().sqrt().clamp(min=_SMALL) if len(packed) > 1 else 1.0
        if not agree_but_for_rounding(found / size, known / size, dtype):
            return False
    # Other tokens in the first sequence's own segment: the later sequences must not notice, to the last bit.
    # The first scored token is predicted from the shared segment, the others from the sequence's own.
    num_first = sequences[0].num_scored
    own = batch.source_index[1:num_first]
    batch.input_ids[0, own] = batch.input_ids[0, own].flip(0)
    disturbed = _outputs(model, batch)
    return all(
        torch.equal(one[num_first:], other[num_first:]) for one, other in zip(packed, disturbed, strict=True)
    )


def _looks_ahead(model: nn.Module, sequences: Sequence[Encoded], expected: Sequence[Tensor]) -> bool:
    """Whether what comes later changes anything, be it less than half precision's rounding."""
    batch = pad(sequences)
    for row, item in enumerate(sequences):
        # No scored token is read off a sequence's last one.
        batch.input_ids[row, len(item.token_ids) - 1] = item.token_ids[0]
    changed = _outputs(model, batch)
    return not all(torch.equal(one, other) for one, other in zip(changed, expected, strict=True))


def _has_window(config: Any) -> bool:
    """Whether layers have a sliding window, which hides tokens only from texts longer than the probe."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return "sliding_attention" in kinds
    return getattr(config, "sliding_window", None) is not None
