"""Reward models that score steps, tokens or responses directly: label tokens, classifiers, heads, ORMs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stepcredit.encoding import EncodedSteps, Encoding
from stepcredit.errors import UserError
from stepcredit.rewards import aggregate
from stepcredit.scorers.base import DEFAULT_WINDOW, Judgement, WindowedScorer
from stepcredit.scorers.readers import StepReader

STEP_AGGREGATES = ("min", "last", "mean", "sum", "product")
"""What a response's reward may be, of its step scores."""

TOKEN_MEAN = "token-mean"
"""What a response's reward is of its token values."""


class StepModelScorer(WindowedScorer):
    """A step's reward and value are both the model's score of it; the response's is an aggregate of them.

    Args:
        reader: Gives the step scores.
        encoding: The family's format.
        family: Names the kind of model in the scores.
        label: Names the model in the scores.
        response_aggregate: One of :data:`STEP_AGGREGATES`.
        window: Most rollouts held in memory.
        with_tokens: Whether scores hold token rewards, where the model gives such.
    """

    response_aggregates: tuple[str, ...] = STEP_AGGREGATES

    def __init__(
        self,
        reader: StepReader,
        encoding: Encoding,
        *,
        family: str,
        label: str = "model",
        response_aggregate: str = "min",
        window: int = DEFAULT_WINDOW,
        with_tokens: bool = False,
    ) -> None:
        if response_aggregate not in self.response_aggregates:
            raise UserError(
                f"no aggregate {response_aggregate!r}",
                where="--aggregate",
                hint=f"use {', '.join(self.response_aggregates)}",
            )
        super().__init__(encoding, window=window, with_tokens=with_tokens)
        self.reader = reader
        self.family = family
        self.label = label
        self.response_aggregate = response_aggregate

    @property
    def name(self) -> str:
        """Kind, model, and which aggregate the response's reward is."""
        return f"{self.family}: {self.label}, reward is {self.response_aggregate}"

    def judge(self, encoded: Sequence[EncodedSteps]) -> list[Judgement]:
        """Read the step scores."""
        judgements = []
        for scores in self.reader.of([item.encoded for item in encoded]):
            aggregates = aggregate(scores)
            reward = aggregates[self.response_aggregate]
            judgements.append(Judgement(reward=reward, rewards=scores, values=scores, aggregates=aggregates))
        return judgements


class TokenHeadScorer(StepModelScorer):
    """Every token has a value (Q-RM, arXiv:2505.23363); what lies in a step or a response is averaged.

    A step's reward is the mean value of its own tokens (0 without tokens), its value that of all tokens
    up to its end, and the response's reward the mean of all, unless another aggregate is asked for.

    Args:
        reader: Gives the value of each token.
        encoding: The family's format.
        family: Names the kind of model in the scores.
        label: Names the model in the scores.
        response_aggregate: :data:`TOKEN_MEAN`, or one of :data:`STEP_AGGREGATES` of the step rewards.
        window: Most rollouts held in memory.
        with_tokens: Whether scores hold token rewards, where the model gives such.
    """

    response_aggregates = (TOKEN_MEAN, *STEP_AGGREGATES)

    def judge(self, encoded: Sequence[EncodedSteps]) -> list[Judgement]:
        """Read every token's value."""
        at_tokens = [
            replace(item.encoded, step_ends=tuple(range(1, item.encoded.num_scored + 1))) for item in encoded
        ]
        judgements = []
        for item, values in zip(encoded, self.reader.of(at_tokens), strict=True):
            ends = np.array(item.encoded.step_ends)
            sizes = np.diff(ends, prepend=0)
            sums = np.concatenate([[0.0], np.cumsum(values)])
            rewards = np.diff(sums[ends], prepend=0.0) / np.maximum(sizes, 1)
            aggregates = aggregate(rewards)
            reward = (aggregates | {TOKEN_MEAN: float(values.mean())})[self.response_aggregate]
            judgements.append(
                Judgement(
                    reward=reward,
                    rewards=rewards,
                    values=sums[ends] / np.maximum(ends, 1),
                    aggregates=aggregates,
                    token_rewards=values,
                )
            )
        return judgements
