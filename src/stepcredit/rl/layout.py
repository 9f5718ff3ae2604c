"""Rewards of a text's pieces to rewards of a trainer's own tokens.

A piece of text belongs to the token in which its first character lies, so that sums are kept whatever
tokenizer the reward model has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from stepcredit.encoding.token_starts import token_starts
from stepcredit.errors import UserError
from stepcredit.steps import step_token_ends
from stepcredit.types import ResponseScore, Step
from stepcredit.wording import suggestion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Layout = Literal["tokens", "steps"]
_LAYOUTS: tuple[Layout, ...] = ("tokens", "steps")


def check_layout(layout: str) -> None:
    """Refuse an unknown layout.

    Raises:
        UserError: There is no such layout.
    """
    if layout not in _LAYOUTS:
        raise UserError(f"there is no layout {layout!r}", hint=suggestion(layout, _LAYOUTS))


def lay_out(
    score: ResponseScore,
    response: str,
    token_ids: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
) -> NDArray[np.float64]:
    """One reward per token of a response.

    Args:
        score: Of the response; with token rewards for the layout ``tokens``.
        token_ids: The trainer's tokens of it, end-of-turn included.
        layout: ``tokens`` or ``steps``.

    Raises:
        UserError: The model gives no token rewards, or it rewrites the text.
    """
    if score.scored_text is not None and score.scored_text != response:
        raise UserError(
            f"{score.scorer} scores a rewritten text, whose offsets do not fit the tokens",
            hint="score with --convention clean",
        )
    starts = token_starts(tokenizer, response, token_ids)
    if layout == "steps":
        return on_last_tokens(score.steps, [step.reward for step in score.steps], starts)
    if score.token_rewards is None or score.token_ends is None:
        raise UserError(f"{score.scorer} gives no token rewards", hint="use layout='steps'")
    rewards = np.asarray(score.token_rewards, dtype=np.float64)
    scored_starts = (0, *score.token_ends[:-1])
    if scored_starts == starts:
        return rewards
    return onto_tokens(rewards, scored_starts, starts)


def on_last_tokens(
    steps: Sequence[Step], rewards: Sequence[float], starts: Sequence[int]
) -> NDArray[np.float64]:
    """Each step's reward on its last token.

    A step in which no token starts gives it to the token before; the first step's to the first token.

    Args:
        steps: They tile the text.
        rewards: One per step.
        starts: Character at which each token starts.
    """
    laid_out = np.zeros(len(starts))
    for end, reward in zip(step_token_ends(starts, steps), rewards, strict=True):
        laid_out[max(end - 1, 0)] += reward
    return laid_out


def onto_tokens(
    rewards: Float[np.ndarray, " scored"], scored_starts: Sequence[int], starts: Sequence[int]
) -> NDArray[np.float64]:
    """Rewards of one tokenizer's tokens on those of another, of the same text.

    Args:
        rewards: One per scored token.
        scored_starts: Character at which each scored token starts.
        starts: Character at which each token starts that receives rewards.
    """
    places = np.searchsorted(np.asarray(starts), np.asarray(scored_starts), side="right") - 1
    laid_out = np.zeros(len(starts))
    np.add.at(laid_out, np.maximum(places, 0), rewards)
    return laid_out
