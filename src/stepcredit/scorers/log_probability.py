"""The baseline without training: how likely a model finds the response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Unpack

from stepcredit.checkpoints import context_length
from stepcredit.encoding import EncodedSteps, Encoding
from stepcredit.errors import UserError
from stepcredit.logprobs import CachedTokenLogProbs, LocalTokenLogProbs
from stepcredit.scorers.base import Judgement, Shared, WindowedScorer, judge_tokens
from stepcredit.scorers.kind import Kind
from stepcredit.scorers.loading import Checkpoint, chat_encoding
from stepcredit.scorers.settings import ScorerSettings
from stepcredit.types import TokenLogProbs

REWARDS = {"sum": "sum", "mean": "length_normalised", "min": "min"}
"""What the response's reward may be: log-probability of all tokens, a token, or the least likely step."""


class LogProbabilityScorer(WindowedScorer):
    """A step's reward is the log-probability of its tokens (nats), its value that of the response so far.

    Args:
        response_reward: One of :data:`REWARDS`.
        **shared: See :class:`~stepcredit.scorers.base.Shared`.
    """

    def __init__(
        self,
        model: TokenLogProbs,
        encoding: Encoding,
        *,
        response_reward: str = "sum",
        **shared: Unpack[Shared],
    ) -> None:
        if response_reward not in REWARDS:
            raise UserError(
                f"no aggregate {response_reward!r} of log-probabilities",
                where="--aggregate",
                hint=f"use {', '.join(REWARDS)}",
            )
        super().__init__(encoding, **shared)
        self.model = model
        self.response_reward = response_reward

    @property
    def name(self) -> str:
        """Kind, model, convention, and which aggregate the response's reward is."""
        return f"log-probability: {self.label}, {self.encoding.name}, reward is {self.response_reward}"

    def judge(self, encoded: Sequence[EncodedSteps]) -> list[Judgement]:
        """Log-probabilities of the scored tokens, cut into steps."""
        log_probs = self.model.of([item.encoded for item in encoded])
        judged = [judge_tokens(*pair, 1.0) for pair in zip(encoded, log_probs, strict=True)]
        name = REWARDS[self.response_reward]
        return [replace(judgement, reward=judgement.aggregates[name]) for judgement in judged]


@dataclass(frozen=True, kw_only=True)
class LogProbabilityKind(Kind):
    """Any language model, as it is."""

    def load(self, settings: ScorerSettings) -> LogProbabilityScorer:
        """The scorer of a checkpoint."""
        checkpoint = Checkpoint(settings)
        model = checkpoint.model()
        log_probs: TokenLogProbs = LocalTokenLogProbs(model, weights_hash=checkpoint.model_hash)
        if settings.cache is not None:
            log_probs = CachedTokenLogProbs(log_probs, settings.cache)
        return LogProbabilityScorer(
            log_probs,
            checkpoint.encoding(context_length(model.config)),
            response_reward=settings.response_aggregate or "sum",
            **checkpoint.shared(model),
        )


LOG_PROBABILITY = LogProbabilityKind(
    name="log-probability",
    encoding=chat_encoding,
    takes=frozenset({"steps", "convention", "response_aggregate", "cache"}),
)
