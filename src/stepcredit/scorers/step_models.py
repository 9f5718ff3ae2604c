"""Reward models that score steps or responses directly: label-token, classifier and value-head PRMs, ORMs."""

from __future__ import annotations

from collections.abc import Sequence

from stepcredit.encoding import EncodedSteps, Encoding
from stepcredit.errors import UserError
from stepcredit.rewards import aggregate
from stepcredit.scorers.base import DEFAULT_WINDOW, Judgement, WindowedScorer
from stepcredit.scorers.readers import StepReader

STEP_AGGREGATES = ("min", "last", "mean", "sum", "product")
"""What a response's reward may be, of its step scores."""


class StepModelScorer(WindowedScorer):
    """A step's reward and value are both the model's score of it; the response's is an aggregate of them.

    Args:
        reader: Gives the step scores.
        encoding: The family's format.
        family: Names the kind of model in the scores.
        label: Names the model in the scores.
        response_aggregate: One of :data:`STEP_AGGREGATES`.
        window: Most rollouts held in memory.
    """

    def __init__(
        self,
        reader: StepReader,
        encoding: Encoding,
        *,
        family: str,
        label: str = "model",
        response_aggregate: str = "min",
        window: int = DEFAULT_WINDOW,
    ) -> None:
        if response_aggregate not in STEP_AGGREGATES:
            raise UserError(
                f"no aggregate {response_aggregate!r}",
                where="--aggregate",
                mend=f"use {', '.join(STEP_AGGREGATES)}",
            )
        super().__init__(encoding, window=window)
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
