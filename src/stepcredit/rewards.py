"""Token log-ratios -> step rewards, values and aggregates (paper, section 3; numpy, float64 sums)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from stepcredit.types import LARGEST_NUMBER

AGGREGATES = ("min", "last", "mean", "sum", "product", "length_normalised")
"""Names of the aggregates of step rewards, as :func:`aggregate` gives them."""


@dataclass(frozen=True, slots=True)
class StepRewards:
    """What each step of a response is worth.

    Attributes:
        rewards: ``values[k] - values[k-1]``, shape (steps,): beta times the step's sum of log-ratios.
        values: Cumulative reward at the end of each step, q_t in the paper, shape (steps,).
    """

    rewards: NDArray[np.float64]
    values: NDArray[np.float64]


def step_rewards(
    log_ratios: Float[np.ndarray, " tokens"], step_ends: Sequence[int], beta: float
) -> StepRewards:
    r"""Process rewards of a response: ``q_t = beta * sum_{i<=t} log pi(y_i) - log pi_ref(y_i)``.

    Args:
        log_ratios: log pi(y_i | y_<i) - log pi_ref(y_i | y_<i) of each scored token, in nats; without a
            reference, log pi(y_i | y_<i).
        step_ends: One past each step's last token, non-decreasing, within ``[0, tokens]``.
        beta: Scale of the reward.

    Returns:
        Rewards (zero for a step without tokens) and values. The last value is the response's reward if
        the last step ends at the last token.
    """
    ends = np.asarray(step_ends, dtype=np.int64)
    assert np.all(np.diff(ends, prepend=0) >= 0), "step ends decrease"
    assert ends.size == 0 or ends[-1] <= len(log_ratios), "a step ends after the last token"
    cumulative = np.concatenate([[0.0], np.cumsum(log_ratios, dtype=np.float64)]) * beta
    values = cumulative[ends]
    # A step without tokens is exactly 0, and rewards do not inherit the rounding of long sums.
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    rewards = np.array(
        [
            beta * float(np.sum(log_ratios[start:end], dtype=np.float64))
            for start, end in zip(starts, ends, strict=True)
        ]
    )
    return StepRewards(rewards.astype(np.float64), values)


def aggregate(rewards: Float[np.ndarray, " steps"], num_tokens: int | None = None) -> dict[str, float]:
    """One number for the whole response from its step rewards, several ways.

    Args:
        rewards: At least one step reward.
        num_tokens: Number of scored tokens; adds ``length_normalised``, the sum over this number.

    Returns:
        ``min``, ``last``, ``mean``, ``sum``, ``product`` (unless it is larger than
        :data:`~stepcredit.types.LARGEST_NUMBER`) and, with ``num_tokens``, ``length_normalised``.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    with np.errstate(over="ignore"):
        product = float(rewards.prod())
    aggregates = {
        "min": float(rewards.min()),
        "last": float(rewards[-1]),
        "mean": float(rewards.mean()),
        "sum": float(rewards.sum()),
    }
    if abs(product) <= LARGEST_NUMBER:
        aggregates["product"] = product
    if num_tokens:
        aggregates["length_normalised"] = aggregates["sum"] / num_tokens
    return aggregates
