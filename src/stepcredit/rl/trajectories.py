"""One reward per token of trajectories that a trainer holds as token ids and a loss mask.

SkyRL's ``prompt_token_ids``, ``response_ids`` and ``loss_masks``, slime's ``tokens``, ``response_length`` and
``loss_mask``, and verl's ``prompts``, ``responses`` and ``response_mask`` all say the same: which tokens the
policy wrote. So several turns with tools in between need no chat template here, and only the policy's own
tokens get rewards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepcredit.encoding import EncodingError
from stepcredit.encoding.chat import ChatEncoding
from stepcredit.encoding.token_starts import token_starts
from stepcredit.errors import DataError, UserError
from stepcredit.rewards import step_rewards
from stepcredit.rl.layout import Layout, check_layout, on_last_tokens
from stepcredit.scorers.base import ResponseScorer
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.steps import grouped, split, step_token_ends
from stepcredit.types import Encoded
from stepcredit.wording import quantity


def token_rewards(
    prm: ResponseScorer,
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[int]],
    loss_masks: Sequence[Sequence[int]] | None = None,
    *,
    layout: Layout = "tokens",
) -> list[NDArray[np.float64]]:
    """Rewards of the policy's tokens: beta times their log-ratio, given everything before them.

    Args:
        prm: An implicit reward model in this process, whose tokenizer is the policy's.
        prompt_ids: Tokens of each prompt, as the policy read them, without padding.
        response_ids: Tokens after each prompt: the policy's, and between its turns those of tools.
        loss_masks: 1 where the policy wrote the token, 0 elsewhere; without them it wrote all.
        layout: ``tokens``, each token's own reward, or ``steps``: a step's reward on the step's last token.
            Each turn is cut into steps by itself.

    Returns:
        An array of shape ``(tokens,)`` per response, in nats; zero where the mask is.

    Raises:
        UserError: The reward model is of another kind.
        EncodingError: A sequence is longer than its context (``too-long``).
        DataError: Numbers do not match, or a token is not in the model's vocabulary.
    """
    check_layout(layout)
    if not isinstance(prm, ImplicitPRM) or not isinstance(prm.encoding, ChatEncoding):
        raise UserError(
            f"{prm.name} does not score tokens by their ids",
            where="token_rewards",
            hint="use an implicit reward model in this process, or StepRewards.per_token",
        )
    masks = [[1] * len(ids) for ids in response_ids] if loss_masks is None else loss_masks
    _check(prompt_ids, response_ids, masks)
    written = [place for place, mask in enumerate(masks) if any(mask)]
    sequences = [
        _encoded(prompt_ids[place], response_ids[place], prm.encoding, f"trajectory {place}")
        for place in written
    ]
    arrays = [np.zeros(len(ids)) for ids in response_ids]
    for place, ratios in zip(written, prm.log_ratios(sequences), strict=True):
        mask = np.asarray(masks[place], dtype=bool)
        arrays[place] = np.where(mask, prm.beta * ratios, 0.0)
        if layout == "steps":
            arrays[place] = _on_steps(arrays[place], response_ids[place], mask, prm.encoding)
    return arrays


def _check(
    prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]], masks: Sequence[Sequence[int]]
) -> None:
    if not len(prompt_ids) == len(response_ids) == len(masks):
        raise DataError(
            f"there are {len(prompt_ids)} prompts, {len(response_ids)} responses and {len(masks)} masks",
            where="token_rewards",
            hint="pass one of each per trajectory",
        )
    for place, (prompt, response, mask) in enumerate(zip(prompt_ids, response_ids, masks, strict=True)):
        if len(response) != len(mask):
            raise DataError(
                f"has {quantity(len(response), 'token')} and a mask of {len(mask)}",
                where=f"trajectory {place}",
                hint="pass one 0 or 1 per token of the response",
            )
        if not np.isin(np.asarray(mask), (0, 1)).all():
            raise DataError(
                "has a mask of other numbers than 0 and 1",
                where=f"trajectory {place}",
                hint="pass 1 where the policy wrote the token, else 0",
            )
        if not len(prompt):
            raise DataError("has no prompt", where=f"trajectory {place}", hint="pass the prompt's token ids")


def _encoded(prompt: Sequence[int], response: Sequence[int], encoding: ChatEncoding, where: str) -> Encoded:
    token_ids = tuple(map(int, (*prompt, *response)))
    size = len(encoding.tokenizer)
    wrong = next((token_id for token_id in token_ids if not 0 <= token_id < size), None)
    if wrong is not None:
        raise DataError(
            f"token {wrong} is not one of the reward model's {size:,}",
            where=where,
            hint="train the reward model from the policy's own weights, so that they share a tokenizer",
        )
    if encoding.max_tokens is not None and len(token_ids) > encoding.max_tokens:
        raise EncodingError(
            "too-long",
            f"has {quantity(len(token_ids), 'token')}, more than the context of {encoding.max_tokens}",
            where=where,
            hint="generate shorter ones, or use a reward model with a longer context",
        )
    return Encoded(token_ids, len(prompt))


def _on_steps(
    rewards: NDArray[np.float64], token_ids: Sequence[int], mask: NDArray[np.bool_], encoding: ChatEncoding
) -> NDArray[np.float64]:
    """Sums of the steps of each of the policy's turns, on the steps' last tokens."""
    laid_out = np.zeros(len(rewards))
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        ids = [int(token_id) for token_id in token_ids[start:end]]
        text = str(encoding.tokenizer.decode(ids, skip_special_tokens=True))
        steps = split(text, encoding.step_rule)
        starts = token_starts(encoding.tokenizer, text, ids)
        steps, ends = grouped(steps, step_token_ends(starts, steps), encoding.step_rule.max_tokens)
        sums = step_rewards(rewards[start:end], ends, beta=1.0).rewards
        laid_out[start:end] = on_last_tokens(steps, sums.tolist(), starts)
    return laid_out
