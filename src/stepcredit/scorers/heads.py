"""Heads with one output on every token: values of prefixes, and values of single tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import transformers
from jaxtyping import Float
from torch import Tensor, nn

from stepcredit.checkpoints import load_model
from stepcredit.encoding import EncodedSteps
from stepcredit.errors import CheckpointError
from stepcredit.logprobs import TokenBatch
from stepcredit.objectives import ObjectiveInput
from stepcredit.rewards import aggregate
from stepcredit.scorers.base import Judgement
from stepcredit.scorers.forward_batch import ForwardBatch
from stepcredit.scorers.loading import Checkpoint, chat_encoding
from stepcredit.scorers.pooling import FromLogits
from stepcredit.scorers.step_models import (
    STEP_AGGREGATES,
    TAKEN_OF_CLASSIFIERS,
    StepKind,
    StepModelScorer,
    model_inputs,
)

TOKEN_MEAN = "token-mean"
"""What a response's reward is of its token values."""


def probabilities(configuration: Any) -> FromLogits:
    """Gives the probability of a classifier's second class, or the sigmoid of its only output, in [0, 1]."""

    def of(logits: Float[Tensor, "N classes"]) -> Float[Tensor, " N"]:
        if logits.shape[1] == 1:
            return logits[:, 0].sigmoid()
        if logits.shape[1] == 2:
            return logits.softmax(dim=-1)[:, 1]
        raise CheckpointError(
            f"has {logits.shape[1]} classes, not one or two",
            where=configuration.name_or_path or None,
            hint="name a token classifier of right and wrong steps",
        )

    return of


def only_output(logits: Float[Tensor, "N classes"]) -> Float[Tensor, " N"]:
    """A classifier's only output as it is, any real number."""
    if logits.shape[1] != 1:
        raise CheckpointError(
            f"has {logits.shape[1]} classes, not one", hint="name a token classifier with one output"
        )
    return logits[:, 0]


class TokenHeadScorer(StepModelScorer):
    """Every token has a value (Q-RM, arXiv:2505.23363); what lies in a step or a response is averaged.

    A step's reward is the mean value of its own tokens (0 without tokens), its value that of all tokens
    up to its end, and the response's reward the mean of all, unless another aggregate is asked for.
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


def value_record(model: nn.Module, batch: ForwardBatch) -> ObjectiveInput:
    """The head's values at the scored tokens; a response's reward is the one at its last token."""
    return values_record(batch, scored_logits(model, batch.tokens)[:, 0])


def token_record(model: nn.Module, batch: ForwardBatch) -> ObjectiveInput:
    """The tokens' own values, Q of Q-RM; a response's reward is their mean: tokens share the credit."""
    values = batch.padded(scored_logits(model, batch.tokens)[:, 0])
    return ObjectiveInput(
        rewards=values.sum(dim=1) / batch.lengths,
        labels=batch.labels,
        lengths=batch.lengths,
        head_values=values,
    )


def values_record(batch: ForwardBatch, at_tokens: Float[Tensor, " scored"]) -> ObjectiveInput:
    """The record of values of prefixes, one per scored token."""
    values, lengths = batch.padded(at_tokens), batch.lengths
    return ObjectiveInput(
        rewards=values.gather(1, lengths[:, None] - 1)[:, 0],
        labels=batch.labels,
        lengths=lengths,
        head_values=values,
        token_targets=batch.token_targets,
    )


def scored_logits(model: nn.Module, tokens: TokenBatch) -> Float[Tensor, "scored classes"]:
    """The head's outputs at each scored token itself, not where it is predicted."""
    outputs: Any = model(**model_inputs(model, tokens))
    at_tokens: Tensor = outputs.logits.float().flatten(0, 1).index_select(0, tokens.token_index)
    return at_tokens


def load_classifier(checkpoint: Checkpoint) -> Any:
    """The weights of a classifier of tokens."""
    model_class = transformers.AutoModelForTokenClassification
    return load_model(checkpoint.path, checkpoint.load, model_class=model_class)


VALUE_HEAD = StepKind(
    name="value-head",
    encoding=chat_encoding,
    architecture="ForTokenClassification",
    num_classes=1,
    load_weights=load_classifier,
    from_logits=probabilities,
    takes=TAKEN_OF_CLASSIFIERS,
    response_aggregate="last",
    record=lambda *_: value_record,
)
"""The value of a prefix is one number on its last hidden state; a step's score is its sigmoid."""

TOKEN_HEAD = StepKind(
    name="token-head",
    encoding=chat_encoding,
    num_classes=1,
    load_weights=load_classifier,
    from_logits=lambda _: only_output,
    takes=TAKEN_OF_CLASSIFIERS,
    response_aggregate=TOKEN_MEAN,
    scorer_class=TokenHeadScorer,
    record=lambda *_: token_record,
)
"""The same network, whose number is the token's own share of the reward."""
