"""What a verl reward manager gives for a trajectory; no verl is needed to compute it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from stepcredit.encoding import EncodingError
from stepcredit.errors import DataError, UserError
from stepcredit.rl.layout import check_layout
from stepcredit.rl.step_rewards import StepRewards
from stepcredit.rl.trajectories import token_rewards
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.scorers.kinds import load_scorer
from stepcredit.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class VerlSettings:
    """``reward_kwargs`` of the manager.

    Attributes:
        prm: A reward model: a directory, a hub id or ``http://HOST:PORT``.
        layout: ``tokens`` or ``steps``: where process rewards lie. A model on a server, or one that is not
            implicit, gives ``steps``.
        aggregate: Gives one number per response, on its last token, instead: e.g. ``min``.
        process_weight: Of the process rewards.
        outcome_weight: Of verl's own score of the answer, on the last token; 0 does not compute it.
        reference_floor: As in :class:`~stepcredit.scorers.implicit.ImplicitPRM`.
        unscored: Process reward of a response without text, and of one that the model cannot read. Below the
            others' if these are mostly negative: 0 would be the best of them.
    """

    prm: str
    layout: Literal["tokens", "steps"] = "tokens"
    aggregate: str | None = None
    process_weight: float = 1.0
    outcome_weight: float = 1.0
    reference_floor: float = 0.0
    unscored: float = 0.0

    def __post_init__(self) -> None:
        check_layout(self.layout)


class TokenScore(float):
    """A response's reward that knows how it divides among the tokens; as a number it is their sum.

    verl passes rewards on as numbers. Where it lets the manager lay them out, they reach their tokens;
    where it puts them on the last token itself, their sum does.

    Attributes:
        tokens: One reward per token of the response.
    """

    tokens: NDArray[np.float64]

    def __new__(cls, tokens: NDArray[np.float64]) -> TokenScore:
        """The sum of ``tokens``, which it keeps."""
        score = super().__new__(cls, float(tokens.sum()))
        score.tokens = tokens
        return score

    def __reduce__(self) -> Any:
        return TokenScore, (self.tokens,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One trajectory, without padding.

    Attributes:
        mask: 1 where the policy wrote the token; ``None`` where verl does not say.
        num_turns: Turns of the conversation; above 2 there are tools.
        prompt: The prompt's messages, where verl kept them.
    """

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    mask: Sequence[int] | None = None
    num_turns: int = 2
    prompt: Sequence[Message] | None = None


class VerlRewards:
    """Process rewards of trajectories, one at a time; threads wait for each other."""

    def __init__(self, settings: VerlSettings, tokenizer: PreTrainedTokenizerBase) -> None:
        self.settings = settings
        scorer = load_scorer(settings.prm, reference_floor=settings.reference_floor)
        self._step_rewards = StepRewards(scorer, aggregate=settings.aggregate or "sum", tokenizer=tokenizer)
        self._lock = threading.Lock()
        self._warned = False

    def score(self, trajectory: Trajectory, outcome: float | None) -> tuple[TokenScore, Mapping[str, float]]:
        """The reward per token, and what verl logs.

        Args:
            outcome: verl's own score of the answer; ``None`` adds none.

        Raises:
            UserError: There are several turns and no mask, or the model needs text and there is no prompt.
        """
        if not len(trajectory.response_ids):
            raise DataError("a response has no tokens, so there is no place for a reward", where="verl")
        with self._lock:
            scored = self._process(trajectory)
        process = scored
        if process is None:
            process = np.zeros(len(trajectory.response_ids))
            process[-1] = self.settings.unscored
        tokens = self.settings.process_weight * process
        if outcome is not None:
            tokens[-1] += self.settings.outcome_weight * outcome
        has_ended = self._step_rewards.policy_tokens.has_ended(trajectory.response_ids)
        logged = {
            "process_reward": float(process.sum()),
            "clipped": float(not has_ended),
            "unscored": float(scored is None),
        }
        return TokenScore(tokens), logged if outcome is None else {**logged, "acc": float(outcome)}

    def _process(self, trajectory: Trajectory) -> NDArray[np.float64] | None:
        """``None`` for what is not scored: the reward of an end-of-turn alone may be the highest of all."""
        if trajectory.mask is None and trajectory.num_turns > 2:
            raise UserError(
                f"a conversation of {trajectory.num_turns} turns has no response_mask, so tokens of "
                "tools would be rewarded",
                where="verl",
                hint="let the trainer compute rewards after the rollout, where verl has the mask",
            )
        scorer, settings = self._step_rewards.scorer, self.settings
        written = trajectory.response_ids
        if trajectory.mask is not None:
            written = [token for token, mask in zip(written, trajectory.mask, strict=True) if mask]
        if not self._step_rewards.policy_tokens.text(written).strip():
            return None
        if settings.aggregate is None and isinstance(scorer, ImplicitPRM):
            return self._of_tokens(scorer, trajectory)
        if trajectory.prompt is None or trajectory.num_turns > 2:
            raise UserError(
                f"{scorer.name} reads text, and verl gives no raw_prompt of one turn",
                where="verl",
                hint="set data.return_raw_chat=True, or use an implicit reward model without aggregate",
            )
        if settings.aggregate is None:
            (at_steps,) = self._step_rewards.per_token_if_read(
                [trajectory.prompt], [trajectory.response_ids], "steps"
            )
            return at_steps
        text = self._step_rewards.policy_tokens.text(trajectory.response_ids)
        (reward,) = self._step_rewards([trajectory.prompt], [text], [trajectory.response_ids])
        if reward is None:
            return None
        rewards = np.zeros(len(trajectory.response_ids))
        rewards[-1] = reward
        return rewards

    def _of_tokens(self, scorer: ImplicitPRM, trajectory: Trajectory) -> NDArray[np.float64] | None:
        """``None`` for one that is longer than the model's context."""
        masks = None if trajectory.mask is None else [trajectory.mask]
        try:
            (rewards,) = token_rewards(
                scorer, [trajectory.prompt_ids], [trajectory.response_ids], masks, layout=self.settings.layout
            )
        except EncodingError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(f"a trajectory {error.problem}: not scored, as others like it", stacklevel=2)
            return None
        return rewards


def laid_out(scores: Sequence[float], lengths: Sequence[int], width: int) -> NDArray[np.float32]:
    """Rewards as verl's ``rm_scores``: each response's tokens from the left, zero after its end.

    Args:
        scores: One per response; a plain number lies on the last token.
        lengths: Tokens of each response.
        width: Of the padded responses.

    Raises:
        DataError: A score has another number of tokens than its response.
    """
    rows = np.zeros((len(scores), width), dtype=np.float32)
    for row, (score, length) in enumerate(zip(scores, lengths, strict=True)):
        if not isinstance(score, TokenScore):
            rows[row, length - 1] = score
        elif len(score.tokens) == length:
            rows[row, :length] = score.tokens
        else:
            raise DataError(
                f"has {length} tokens and rewards for {len(score.tokens)}: they belong to another response",
                where=f"response {row}",
            )
    return rows
