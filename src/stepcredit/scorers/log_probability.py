"""The baseline without training: how likely a model finds the response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stepcredit.checkpoints import context_length
from stepcredit.encoding import EncodedSteps, Encoding
from stepcredit.errors import UserError
from stepcredit.logprobs import LocalTokenLogProbs
from stepcredit.rewards import aggregate, step_rewards
from stepcredit.scorers.base import Judgement, WindowedScorer
from stepcredit.scorers.kind import Kind
from stepcredit.scorers.loading import Checkpoint, chat_encoding
from stepcredit.scorers.settings import DEFAULT_WINDOW, ScorerSettings
from stepcredit.types import TokenLogProbs

REWARDS = {"sum": "sum", "mean": "length_normalised", "min": "min"}
"""What the response's reward may be: log-probability of all tokens, a token, or the least likely step."""


class LogProbabilityScorer(WindowedScorer):
    """A step's reward is the log-probability of its tokens (nats), its value that of the response so far.

    Args:
        model: Log-probabilities, usually of an untrained model.
        encoding: Format and convention.
        label: Names the model in the scores.
        response_reward: One of :data:`REWARDS`.
        window: Most rollouts held in memory.
        with_tokens: Whether scores hold token log-probabilities.
    """

    def __init__(
        self,
        model: TokenLogProbs,
        encoding: Encoding,
        *,
        label: str = "model",
        response_reward: str = "sum",
        window: int = DEFAULT_WINDOW,
        with_tokens: bool = False,
    ) -> None:
        if response_reward not in REWARDS:
            raise UserError(
                f"no aggregate {response_reward!r} of log-probabilities",
                where="--aggregate",
                hint=f"use {', '.join(REWARDS)}",
            )
        super().__init__(encoding, window=window, with_tokens=with_tokens)
        self.model = model
        self.label = label
        self.response_reward = response_reward

    @property
    def name(self) -> str:
        """Kind, model, convention, and which aggregate the response's reward is."""
        return f"log-probability: {self.label}, {self.encoding.name}, reward is {self.response_reward}"

    def judge(self, encoded: Sequence[EncodedSteps]) -> list[Judgement]:
        """Log-probabilities of the scored tokens, cut into steps."""
        judgements = []
        log_probs = self.model.of([item.encoded for item in encoded])
        for item, values in zip(encoded, log_probs, strict=True):
            steps = step_rewards(values, item.encoded.step_ends, 1.0)
            aggregates = aggregate(steps.rewards, item.encoded.num_scored)
            judgements.append(
                Judgement(
                    reward=aggregates[REWARDS[self.response_reward]],
                    rewards=steps.rewards,
                    values=steps.values,
                    aggregates=aggregates,
                    token_rewards=np.asarray(values, np.float64),
                )
            )
        return judgements


@dataclass(frozen=True, kw_only=True)
class LogProbabilityKind(Kind):
    """Any language model, as it is."""

    def load(self, settings: ScorerSettings) -> LogProbabilityScorer:
        """The scorer of a checkpoint."""
        checkpoint = Checkpoint(settings)
        model = checkpoint.model()
        scorer = LogProbabilityScorer(
            LocalTokenLogProbs(model, weights_hash=checkpoint.content_hash),
            checkpoint.encoding(context_length(model.config)),
            label=checkpoint.label,
            response_reward=settings.response_aggregate or "sum",
            window=settings.window,
            with_tokens=settings.with_tokens,
        )
        scorer.ledger.model_parameters = model.num_parameters()
        return scorer


LOG_PROBABILITY = LogProbabilityKind(
    name="log-probability",
    encoding=chat_encoding,
    takes=frozenset({"steps", "convention", "response_aggregate"}),
)
