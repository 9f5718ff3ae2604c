"""Exact values of tiny instances, by enumerating every completion under the reference.

Independent of any model class: a language model is a function from token sequences to next-token
log-probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NextLogProbs = Callable[[Int[np.ndarray, "sequences length"]], Float[np.ndarray, "sequences vocabulary"]]
"""Next-token log-probabilities (nats) after each of several sequences of equal length."""

_SEQUENCES_AT_ONCE: Final = 2048


@dataclass(frozen=True, slots=True)
class Completions:
    """Everything that can follow a prefix.

    Attributes:
        sequences: Token ids, the prefix included; each ends with the end token or has the full length.
        log_probs: Natural-log probability of what follows the prefix; they sum to one as probabilities.
    """

    sequences: tuple[tuple[int, ...], ...]
    log_probs: Float[np.ndarray, " completions"]


@dataclass(frozen=True, slots=True)
class ExactValue:
    """Value of a prefix under a reward, by the three rules of Proposition 3.2 (mean <= q <= maximum).

    Attributes:
        log_mean_exp: q = beta log E exp(r / beta), which Proposition 3.1 equates to the implicit value.
        mean: E r, what soft Monte-Carlo labels estimate.
        maximum: max r over completions that can happen, what hard labels estimate.
    """

    log_mean_exp: float
    mean: float
    maximum: float


def enumerate_completions(
    model: NextLogProbs, prefix: Sequence[int], *, end_token: int, max_length: int
) -> Completions:
    """All continuations of ``prefix`` with probability above zero under ``model``.

    Args:
        model: Usually the reference.
        prefix: Token ids; one that ends with ``end_token`` has only itself as completion.
        max_length: Sequences of this many tokens (prefix included) end without an end token.

    Raises:
        ValueError: ``prefix`` is longer than ``max_length``.
    """
    if len(prefix) > max_length:
        raise ValueError(f"the prefix has {len(prefix)} tokens, more than max_length {max_length}")
    finished: list[tuple[tuple[int, ...], float]] = []
    growing: list[tuple[tuple[int, ...], float]] = [(tuple(prefix), 0.0)]
    while growing:
        still: list[tuple[tuple[int, ...], float]] = []
        for sequence, log_prob in growing:
            ended = len(sequence) == max_length or sequence[-1:] == (end_token,)
            (finished if ended else still).append((sequence, log_prob))
        growing = []
        if still:
            following = model(np.array([sequence for sequence, _ in still], dtype=np.int64))
            for (sequence, log_prob), row in zip(still, following.astype(np.float64), strict=True):
                growing += [((*sequence, int(t)), log_prob + row[t]) for t in np.flatnonzero(row > -np.inf)]
    sequences, log_probs = zip(*finished, strict=True)
    return Completions(sequences, np.array(log_probs, dtype=np.float64))


def sequence_log_probs(
    model: NextLogProbs, sequences: Sequence[Sequence[int]], *, start: int
) -> Float[np.ndarray, " sequences"]:
    """Log-probability (nats) of the tokens of each sequence from place ``start`` on.

    Prefixes that sequences share are evaluated once.
    """
    prefixes = {tuple(s[:place]) for s in sequences for place in range(start, len(s))}
    following: dict[tuple[int, ...], Float[np.ndarray, " vocabulary"]] = {}
    for length in sorted({len(prefix) for prefix in prefixes}):
        batch = sorted(prefix for prefix in prefixes if len(prefix) == length)
        rows = model(np.array(batch, dtype=np.int64).reshape(len(batch), length)).astype(np.float64)
        following.update(zip(batch, rows, strict=True))
    return np.array(
        [sum(following[tuple(s[:place])][s[place]] for place in range(start, len(s))) for s in sequences],
        dtype=np.float64,
    )


def exact_value(
    completions: Completions, rewards: Float[np.ndarray, " completions"], *, beta: float
) -> ExactValue:
    """Value of the prefix that ``completions`` follow.

    Args:
        completions: From :func:`enumerate_completions` under the reference.
        rewards: r(y) of each whole sequence (beta included).
        beta: Above zero.
    """
    probabilities = np.exp(completions.log_probs)
    scaled = completions.log_probs + np.asarray(rewards, dtype=np.float64) / beta
    peak = scaled.max()
    log_mean_exp = peak + np.log(np.exp(scaled - peak).sum()) if np.isfinite(peak) else peak
    return ExactValue(float(beta * log_mean_exp), float(probabilities @ rewards), float(np.max(rewards)))


def next_log_probs_of(model: PreTrainedModel) -> NextLogProbs:
    """A causal language model as such a function; in float64 where the model is (``model.double()``)."""
    import torch

    def next_log_probs(
        sequences: Int[np.ndarray, "sequences length"],
    ) -> Float[np.ndarray, "sequences vocabulary"]:
        rows = []
        with torch.inference_mode():
            for part in torch.from_numpy(sequences).split(_SEQUENCES_AT_ONCE):
                logits = model(input_ids=part.to(model.device)).logits[:, -1]
                rows.append(logits.double().log_softmax(dim=-1).cpu().numpy())
        return np.concatenate(rows)

    return next_log_probs
