"""The implicit process reward model: two sources of log-probabilities and a beta (arXiv:2412.01981)."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self, Unpack

import numpy as np
from numpy.typing import NDArray
from torch import nn

from stepcredit.encoding import EncodedSteps, Encoding
from stepcredit.logprobs import token_log_probs
from stepcredit.logprobs.growing import growing
from stepcredit.objectives import ObjectiveInput, response_rewards
from stepcredit.scorers.base import Judgement, Shared, WindowedScorer, judge_tokens
from stepcredit.scorers.forward_batch import ForwardBatch
from stepcredit.scorers.kind import Kind
from stepcredit.scorers.loading import chat_encoding, load_pair
from stepcredit.scorers.settings import ScorerSettings, takes_settings
from stepcredit.types import Encoded, TokenLogProbs


class ImplicitPRM(WindowedScorer):
    r"""Step rewards ``beta * sum_i [log pi(y_i) - log pi_ref(y_i)]`` over each step's tokens.

    Args:
        policy: The trained model's log-probabilities.
        reference: The frozen model's; ``None`` scores by the policy alone.
        beta: Scale of the reward, above zero.
        encoding: Format and convention; its tokenizer must be the policy's and the reference's.
        reference_floor: Least probability that the reference is taken to give any token, in [0, 1). Where
            it gives less, nothing was learned of the token, and the log-ratio would grow without bound; so
            searches over many responses at temperature 1 pick such tokens. 0 is the method as published.
        **shared: See :class:`~stepcredit.scorers.base.Shared`.
    """

    def __init__(
        self,
        policy: TokenLogProbs,
        reference: TokenLogProbs | None,
        beta: float,
        encoding: Encoding,
        *,
        reference_floor: float = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        if not 0 < beta < float("inf"):
            raise ValueError(f"beta must be above 0, got {beta}")
        if not 0 <= reference_floor < 1:
            raise ValueError(f"reference_floor must lie in [0, 1), got {reference_floor}")
        super().__init__(encoding, **shared)
        self.reference_floor = reference_floor
        self.policy = policy
        self.reference = reference
        self.beta = beta

    @staticmethod
    @takes_settings
    def from_pretrained(settings: ScorerSettings) -> ImplicitPRM:
        """Load a trained PRM, or use two plain checkpoints as one.

        It takes the fields of :class:`~stepcredit.scorers.settings.ScorerSettings`.

        Raises:
            CheckpointError: Tokenizer, chat template or reference are not those it was trained with, or
                something is missing; the message says which.
        """
        IMPLICIT.check(settings)
        return IMPLICIT.load(settings)

    @contextlib.contextmanager
    def session(self) -> Iterator[Self]:
        """A scorer for responses that grow: both models keep what they have read until the ``with`` ends."""
        twin = copy.copy(self)
        twin.policy = growing(self.policy)
        twin.reference = None if self.reference is None else growing(self.reference)
        yield twin

    @property
    def num_models(self) -> int:
        """The policy, and the reference if there is one."""
        return 1 if self.reference is None else 2

    @property
    def name(self) -> str:
        """Kind, model, beta and convention."""
        kind = "implicit" if self.reference is not None else "implicit, reference-free"
        floor = f", reference floor {self.reference_floor:g}" if self.reference_floor > 0 else ""
        return f"{kind}: {self.label}, beta {self.beta:g}{floor}, {self.encoding.name}"

    def judge(self, encoded: Sequence[EncodedSteps]) -> list[Judgement]:
        """Log-ratios of the scored tokens, cut into steps."""
        log_ratios = self.log_ratios([item.encoded for item in encoded])
        return [self._judgement(item, ratios) for item, ratios in zip(encoded, log_ratios, strict=True)]

    def log_ratios(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float64]]:
        """Log-ratio to the reference, with its floor, of each sequence's scored tokens, in nats."""
        log_ratios = [np.asarray(log_probs, np.float64) for log_probs in self.policy.of(encoded)]
        if self.reference is not None:
            floor = math.log(self.reference_floor) if self.reference_floor > 0 else -math.inf
            reference = [np.maximum(log_probs, floor) for log_probs in self.reference.of(encoded)]
            log_ratios = [ours - theirs for ours, theirs in zip(log_ratios, reference, strict=True)]
        return log_ratios

    def _judgement(self, encoded: EncodedSteps, log_ratios: NDArray[np.float64]) -> Judgement:
        judgement = judge_tokens(encoded, log_ratios, self.beta)
        if self.encoding.name != "best-of-n":
            return judgement
        values = judgement.values
        cumulative = {"cumulative_min": float(values.min()), "cumulative_sum": float(values.sum())}
        return replace(judgement, aggregates={**judgement.aggregates, **cumulative})


def implicit_record(model: nn.Module, batch: ForwardBatch, *, beta: float) -> ObjectiveInput:
    """The same rewards with gradients, for training: beta times the log-ratio to the batch's reference.

    A batch without reference gives the log-probabilities alone.
    """
    log_probs = token_log_probs(model, batch.tokens)
    if batch.reference is not None:
        log_probs = log_probs - batch.reference
    log_ratios = batch.padded(log_probs)
    return ObjectiveInput(
        rewards=response_rewards(log_ratios, beta),
        labels=batch.labels,
        lengths=batch.lengths,
        beta=beta,
        log_ratios=log_ratios,
        token_targets=batch.token_targets,
    )


@dataclass(frozen=True, kw_only=True)
class ImplicitKind(Kind):
    """Two language models and a beta."""

    def load(self, settings: ScorerSettings) -> ImplicitPRM:
        """The scorer of a checkpoint, or of two."""
        pair = load_pair(settings)
        return ImplicitPRM(
            pair.policy,
            pair.reference,
            pair.beta,
            pair.encoding,
            reference_floor=settings.reference_floor,
            **pair.shared,
        )


IMPLICIT = ImplicitKind(
    name="implicit",
    encoding=chat_encoding,
    record=lambda _, beta: partial(implicit_record, beta=beta),
    takes=frozenset(
        {"policy", "reference", "beta", "reference_free", "reference_floor", "cache", "convention", "steps"}
    ),
)
