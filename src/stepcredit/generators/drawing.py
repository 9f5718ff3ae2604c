"""From logits to tokens: temperature, truncation, and the draw itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from stepcredit.errors import CheckpointError
from stepcredit.types import Sampling

_LOOKS = (128, 1024, 8192)
"""Likeliest tokens among which the nucleus is looked for before the whole vocabulary is sorted."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """The part of :class:`stepcredit.types.Sampling` that shapes the next-token distribution."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float

    @classmethod
    def of(cls, sampling: Sampling) -> Truncation:
        """Take the fields that shape the distribution."""
        return cls(sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p)


def _nucleus_floor(weights: Float64[Tensor, "rows vocab"], top_p: float) -> Float64[Tensor, "rows 1"]:
    """Smallest weight inside the smallest set of likeliest tokens whose share reaches ``top_p``."""
    wanted = top_p * weights.sum(dim=-1, keepdim=True)
    floor = torch.empty_like(wanted)
    vocabulary = weights.shape[-1]
    rows = torch.arange(len(weights), device=weights.device)
    fewest = 0.0  # tokens that a row may do with
    for size in (*(size for size in _LOOKS if size < vocabulary), vocabulary):
        if size < min(fewest, vocabulary):
            continue
        largest = (weights if len(rows) == len(weights) else weights[rows]).topk(size, dim=-1).values
        reached = largest.cumsum(dim=-1)
        needed = (reached < wanted[rows]).sum(dim=-1, keepdim=True)
        floor[rows] = largest.gather(-1, needed.clamp(max=size - 1))
        wider = needed[:, 0] == size
        rows = rows[wider]
        if not len(rows):
            break
        # No token further down is likelier than the last one that was looked at.
        missing = (wanted[rows] - reached[wider, -1:]) / largest[wider, -1:]
        fewest = size + float(missing.min())
    return floor


def token_weights(
    logits: Float[Tensor, "rows vocab"], truncation: Truncation
) -> Float64[Tensor, "rows vocab"]:
    """Unnormalised next-token probabilities after temperature and truncation.

    The order is that of ``transformers``: temperature, then the ``top_k`` likeliest tokens, then the nucleus
    of ``top_p`` among those, then tokens of at least ``min_p`` times the largest probability. Tokens
    as likely as the last one kept are kept too, so that the result does not depend on the order of sorting.

    Args:
        logits: Of any float type.
        truncation: ``temperature`` must be above 0.

    Returns:
        Weights in double precision; the largest of a row is 1 and dropped tokens are exactly 0.
    """
    # In place: new memory of this size costs more than the arithmetic.
    scaled = logits.to(torch.float64, copy=True).div_(truncation.temperature)
    weights = scaled.sub_(scaled.amax(dim=-1, keepdim=True)).exp_()
    vocabulary = weights.shape[-1]
    if 0 < truncation.top_k < vocabulary:
        floor = weights.topk(truncation.top_k, dim=-1).values[:, -1:]
        weights = weights.masked_fill_(weights < floor, 0.0)
    if truncation.top_p < 1.0:
        weights = weights.masked_fill_(weights < _nucleus_floor(weights, truncation.top_p), 0.0)
    if truncation.min_p > 0.0:
        weights = weights.masked_fill_(weights < truncation.min_p, 0.0)
    return weights


def draw(
    logits: Float[Tensor, "rows vocab"],
    rows: Int64[np.ndarray, " samples"],
    uniform: Float64[np.ndarray, " samples"],
    truncation: Truncation,
) -> Int64[np.ndarray, " samples"]:
    """One token a sample, by inverting the cumulative distribution of the sample's row.

    The cumulative distribution runs over token ids, not over ranks, so rounding that swaps two nearly equal
    logits changes a draw only if the sample's uniform number lies within that rounding of a boundary.

    Args:
        rows: Which row each sample draws from; several samples may share one.
        uniform: One number in (0, 1) for each sample; not looked at when ``temperature`` is 0.
        truncation: How the distribution is shaped; temperature 0 takes the likeliest token.

    Raises:
        CheckpointError: The model gave logits that are not numbers.
    """
    if truncation.temperature == 0.0:
        best: Int64[np.ndarray, " rows"] = logits.argmax(dim=-1).cpu().numpy()
        if bool(logits.isnan().any()):
            raise _not_numbers()
        greedy: Int64[np.ndarray, " samples"] = best[rows]
        return greedy
    cumulative = token_weights(logits, truncation).cumsum_(dim=-1)
    counts = np.bincount(rows, minlength=len(logits))
    width = int(counts.max())
    order = np.argsort(rows, kind="stable")
    column = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    wanted = np.zeros((len(logits), width))
    wanted[rows[order], column] = uniform[order]
    targets = torch.from_numpy(wanted).to(cumulative.device) * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, targets, right=True).cpu().numpy()
    tokens = np.empty(len(rows), dtype=np.int64)
    tokens[order] = drawn[rows[order], column]
    if tokens.max() >= cumulative.shape[-1]:
        raise _not_numbers()
    return tokens


def _not_numbers() -> CheckpointError:
    return CheckpointError(
        "the model's next-token logits are not numbers (NaN or infinite)",
        hint="check the weights, and that the number format (--dtype) is one the model was made for",
    )
