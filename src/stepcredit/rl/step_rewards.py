"""``StepRewards``: a reward model as a reward function of TRL's trainers, and rewards per token."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.client import Client
from stepcredit.encoding import EncodingError
from stepcredit.errors import UserError
from stepcredit.rewards import AGGREGATES
from stepcredit.rl.completions import Completion, PolicyTokens, as_rollouts
from stepcredit.rl.layout import Layout, check_layout, lay_out
from stepcredit.scorers.base import ResponseScorer
from stepcredit.scorers.kinds import load_scorer
from stepcredit.scorers.remote import RemoteScorer
from stepcredit.types import Message, ResponseScore, Rollout
from stepcredit.wording import suggestion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REWARD = "reward"
"""Stands for the model's own reward of the response, in the place of an aggregate of its steps."""


class StepRewards:
    """A reward function with the signature of TRL's ``GRPOTrainer`` and ``RLOOTrainer``.

    A completion that was cut off is scored without an end-of-turn. One without text is not scored: the
    reward of an end-of-turn alone may be the highest of all, and the policy would learn to stop at once.

    Args:
        prm: A scorer, a :class:`~stepcredit.client.Client`, or what names one: a directory, a hub id or
            ``http://HOST:PORT``.
        aggregate: Which aggregate of the step rewards is a completion's reward, or ``reward`` for the
            model's own reward of the whole.
        tokenizer: The policy's, where it is not that of a reward model in this process.
        unscored: Reward of a completion without text, and of one that the model cannot read (longer than its
            context). ``None`` leaves it out, as TRL does with a reward function that has nothing to say. The
            first of each kind that cannot be read is warned of.

    Raises:
        UserError: There is no such aggregate.
    """

    def __init__(
        self,
        prm: ResponseScorer | Client | str | Path,
        *,
        aggregate: str = "min",
        tokenizer: PreTrainedTokenizerBase | None = None,
        unscored: float | None = None,
    ) -> None:
        names = (*AGGREGATES, REWARD)
        if aggregate not in names:
            raise UserError(
                f"there is no aggregate {aggregate!r}", where="StepRewards", hint=suggestion(aggregate, names)
            )
        if isinstance(prm, Client):
            prm = RemoteScorer(prm)
        self.scorer = prm if isinstance(prm, ResponseScorer) else load_scorer(prm)
        self.aggregate = aggregate
        self.unscored = unscored
        self._warned: set[str] = set()
        # TRL names a reward function's columns by this.
        self.__name__ = f"step_rewards_{aggregate}"
        own = getattr(getattr(self.scorer, "encoding", None), "tokenizer", None)
        tokenizer = tokenizer if tokenizer is not None else own
        self.tokens = None if tokenizer is None else PolicyTokens(tokenizer)

    def __call__(
        self,
        prompts: Sequence[str | Sequence[Message]],
        completions: Sequence[Completion],
        completion_ids: Sequence[Sequence[int]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward per completion.

        Args:
            prompts: One per completion: text, or messages.
            completions: Text, or messages.
            completion_ids: The tokens as drawn, which take precedence over the text.
            log_metric: Takes the shares of completions that were cut off, empty or not scored.
            columns: The data set's, of which ``tools`` is read: the tools of each completion's conversation.

        Raises:
            UserError: A completion has several turns, ids cannot be read, none of the completions can be
                encoded for another reason than length (a chat template refuses the tools), or a server does
                not answer.
        """
        rollouts = self.rollouts(prompts, completions, completion_ids, columns.get("tools"))
        scores = self._scores(self.scorer, rollouts)
        if log_metric is not None and rollouts:
            for name, share in _shares(rollouts, scores).items():
                log_metric(f"{self.__name__}/{name}", share)
        return [self.unscored if score is None else self._reward(score) for score in scores]

    def per_token(
        self,
        prompts: Sequence[str | Sequence[Message]],
        completion_ids: Sequence[Sequence[int]],
        *,
        layout: Layout = "tokens",
        tools: Sequence[Any] | None = None,
    ) -> list[NDArray[np.float64]]:
        """One reward per token of each completion, in the trainer's own tokens.

        Args:
            prompts: One per completion: text, or messages.
            completion_ids: The tokens as drawn, without padding.
            layout: ``tokens``, each token's own reward (of models that give such), or ``steps``: a step's
                reward on the step's last token.
            tools: The tools of each completion's conversation.

        Returns:
            An array of shape ``(tokens,)`` per completion; what is not scored is zero.

        Raises:
            UserError: The model gives no token rewards, or the policy's tokenizer is not known.
        """
        rewards = self.per_token_if_read(prompts, completion_ids, layout, tools)
        return [
            np.zeros(len(ids)) if own is None else own
            for ids, own in zip(completion_ids, rewards, strict=True)
        ]

    def per_token_if_read(
        self,
        prompts: Sequence[str | Sequence[Message]],
        completion_ids: Sequence[Sequence[int]],
        layout: Layout,
        tools: Sequence[Any] | None = None,
    ) -> list[NDArray[np.float64] | None]:
        """As :meth:`per_token`; ``None`` for what is not scored."""
        check_layout(layout)
        tokens = self.policy_tokens
        texts = [tokens.text(ids) for ids in completion_ids]
        rollouts = self.rollouts(prompts, texts, completion_ids, tools)
        scorer = copy.copy(self.scorer)
        scorer.with_tokens = layout == "tokens"
        return [
            None
            if score is None
            else lay_out(score, rollout.response, rollout.response_token_ids or (), tokens.tokenizer, layout)
            for rollout, score in zip(rollouts, self._scores(scorer, rollouts), strict=True)
        ]

    def rollouts(
        self,
        prompts: Sequence[str | Sequence[Message]],
        completions: Sequence[Completion],
        completion_ids: Sequence[Sequence[int]] | None,
        tools: Sequence[Any] | None = None,
    ) -> list[Rollout]:
        """The completions as they are scored."""
        tokens = None if completion_ids is None else self.policy_tokens
        return as_rollouts(prompts, completions, completion_ids, tokens, tools)

    @property
    def policy_tokens(self) -> PolicyTokens:
        """Reads the policy's token ids.

        Raises:
            UserError: The policy's tokenizer is not known.
        """
        if self.tokens is None:
            raise UserError(
                "cannot see which completions were cut off without the policy's tokenizer",
                where="StepRewards",
                hint="pass tokenizer=AutoTokenizer.from_pretrained(POLICY)",
            )
        return self.tokens

    def _scores(self, scorer: ResponseScorer, rollouts: Sequence[Rollout]) -> list[ResponseScore | None]:
        """Scores in order; ``None`` where there is no text, or the model cannot read it."""
        written = [rollout for rollout in rollouts if rollout.response.strip() or rollout.turns is not None]
        unreadable: list[EncodingError] = []
        scores = {score.id: score for score in scorer.score_all(written, on_skip=unreadable.append)}
        for error in unreadable:
            if not scores and error.kind != "too-long":
                raise error  # what no completion escapes is no matter of completions
            if error.kind not in self._warned:
                self._warned.add(error.kind)
                problem = f"{error.where}: {error.problem}"
                warnings.warn(f"{self.__name__}: not scored, as others like it: {problem}", stacklevel=3)
        return [scores.get(rollout.id) for rollout in rollouts]

    def _reward(self, score: ResponseScore) -> float:
        if self.aggregate == REWARD:
            return score.reward
        if self.aggregate not in score.aggregates:
            raise UserError(
                f"{score.scorer} gives no {self.aggregate!r}",
                where="StepRewards",
                hint=f"use {', '.join([*score.aggregates, REWARD])}",
            )
        return score.aggregates[self.aggregate]


def _shares(rollouts: Sequence[Rollout], scores: Sequence[ResponseScore | None]) -> dict[str, float]:
    return {
        "clipped": float(np.mean([rollout.finish_reason == "length" for rollout in rollouts])),
        "empty": float(np.mean([not rollout.response.strip() for rollout in rollouts])),
        "unscored": float(np.mean([score is None for score in scores])),
    }
