"""PRIME's advantages: process rewards and outcomes, each against the other responses to the prompt."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from stepcredit.errors import DataError


def prime_advantages(
    token_rewards: Sequence[Float[np.ndarray, " tokens"]],
    outcomes: Sequence[float],
    prompt_ids: Sequence[Hashable],
    *,
    loss_masks: Sequence[Sequence[int]] | None = None,
    discount: float = 1.0,
    process_weight: float = 1.0,
    outcome_weight: float = 1.0,
) -> list[NDArray[np.float64]]:
    r"""Advantages of each token (arXiv:2502.01456, equation 5).

    With K responses to a prompt, response i's implicit process rewards r_t, their mean m_i over the tokens
    that the policy wrote and its outcome o_i::

        A_t = sum_{s >= t} discount^(s - t) * (r_s - mean_{j != i} m_j)  +  o_i - mean_{j != i} o_j

    Both baselines leave the response itself out, so that they do not depend on it. Tokens that tools wrote
    between the policy's turns are no steps of the sum: they take nothing off, and have no advantage.

    Args:
        token_rewards: One per token of each response, at least one token each.
        outcomes: One per response, e.g. 1 for right and 0 for wrong.
        prompt_ids: Which prompt each response answers; at least two of each.
        loss_masks: 1 where the policy wrote the token, 0 elsewhere, as
            :func:`~stepcredit.rl.trajectories.token_rewards` takes them; without them it wrote all.
        discount: Of later tokens' rewards, in [0, 1].
        process_weight: Of the process term.
        outcome_weight: Of the outcome term.

    Returns:
        An array of shape ``(tokens,)`` per response, in the order given; zero where the mask is.

    Raises:
        DataError: Numbers do not match or are not finite, the policy wrote no token of a response, or it is
            its prompt's only one.
    """
    if not 0 <= discount <= 1:
        raise DataError(f"must lie in [0, 1], got {discount}", where="discount")
    rewards = [np.asarray(values, dtype=np.float64) for values in token_rewards]
    _check(rewards, outcomes, prompt_ids)
    masks = _masks(rewards, loss_masks)
    written = [values[mask] for values, mask in zip(rewards, masks, strict=True)]
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompt_ids):
        groups[prompt].append(place)
    advantages: list[NDArray[np.float64]] = [np.zeros(0)] * len(rewards)
    for places in groups.values():
        means = _leave_one_out(np.array([written[place].mean() for place in places]))
        others = _leave_one_out(np.array([outcomes[place] for place in places], dtype=np.float64))
        for place, mean, other in zip(places, means, others, strict=True):
            process = _returns(written[place] - mean, discount)
            outcome = outcomes[place] - other
            advantages[place] = np.zeros(len(rewards[place]))
            advantages[place][masks[place]] = process_weight * process + outcome_weight * outcome
    return advantages


def _leave_one_out(values: Float[np.ndarray, " responses"]) -> NDArray[np.float64]:
    """Mean of all the others."""
    return np.asarray((values.sum() - values) / (len(values) - 1), dtype=np.float64)


def _returns(rewards: Float[np.ndarray, " tokens"], discount: float) -> NDArray[np.float64]:
    """Discounted sum of each token's reward and those after it."""
    returns = np.zeros(len(rewards))
    total = 0.0
    for place in range(len(rewards) - 1, -1, -1):
        total = rewards[place] + discount * total
        returns[place] = total
    return returns


def _check(
    rewards: Sequence[NDArray[np.float64]], outcomes: Sequence[float], prompt_ids: Sequence[Hashable]
) -> None:
    if not len(rewards) == len(outcomes) == len(prompt_ids):
        raise DataError(
            f"there are {len(rewards)} arrays of token rewards, {len(outcomes)} outcomes and "
            f"{len(prompt_ids)} prompt ids",
            where="prime_advantages",
            hint="pass one of each per response",
        )
    counts = Counter(prompt_ids)
    for place, (values, outcome) in enumerate(zip(rewards, outcomes, strict=True)):
        where = f"response {place}"
        if values.ndim != 1 or not len(values):
            raise DataError("has no tokens", where=where, hint="leave out responses without tokens")
        if not np.isfinite(values).all() or not math.isfinite(outcome):
            raise DataError("has a reward that is not a finite number", where=where)
        if counts[prompt_ids[place]] < 2:
            raise DataError(
                "is the only response to its prompt, so there is nothing to compare it with",
                where=where,
                hint="draw at least two responses to each prompt",
            )


def _masks(
    rewards: Sequence[NDArray[np.float64]], loss_masks: Sequence[Sequence[int]] | None
) -> list[NDArray[np.bool_]]:
    """Which tokens the policy wrote."""
    if loss_masks is None:
        return [np.ones(len(values), dtype=bool) for values in rewards]
    if len(loss_masks) != len(rewards):
        raise DataError(
            f"there are {len(rewards)} arrays of token rewards and {len(loss_masks)} masks",
            where="prime_advantages",
            hint="pass one of each per response",
        )
    masks = [np.asarray(mask) for mask in loss_masks]
    for place, (values, mask) in enumerate(zip(rewards, masks, strict=True)):
        where = f"response {place}"
        if mask.shape != values.shape or not np.isin(mask, (0, 1)).all():
            raise DataError(
                "has a mask that is not one 0 or 1 per token",
                where=where,
                hint="pass 1 where the policy wrote the token, else 0",
            )
        if not mask.any():
            raise DataError(
                "has no token that the policy wrote", where=where, hint="leave out responses without tokens"
            )
    return [mask.astype(bool) for mask in masks]
