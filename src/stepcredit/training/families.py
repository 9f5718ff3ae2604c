"""Kinds of reward models: what a model's forward pass gives, and how it becomes an objective's record.

A family is the only part of training that knows what is being trained; the trainer, batches, checkpoints
and objectives are the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from stepcredit.encoding import Encoding, MathShepherdEncoding, RLHFlowEncoding
from stepcredit.logprobs import TokenBatch, pack, pad, token_log_probs
from stepcredit.objectives import ObjectiveInput, response_rewards
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import Example
from stepcredit.types import Encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardBatch:
    """The tensors of one forward pass.

    Attributes:
        tokens: The distinct sequences.
        sequence_of: For each response of the record, which distinct sequence it is.
        labels: Outcome label of each response.
        reference: Reference log-probability of each scored token (nats), in the order of
            ``tokens.targets``; ``None`` for families without a reference.
        token_targets: Label of the value at a token, NaN where there is none; ``None`` without step labels.
        ids: Rollout id of each response.
        counted: 1 if the losses count, 0 for a pass that only keeps processes in step.
    """

    tokens: TokenBatch
    sequence_of: Int[Tensor, " responses"]
    labels: Float[Tensor, " responses"]
    reference: Float[Tensor, " scored"] | None
    token_targets: Float[Tensor, "responses tokens"] | None
    ids: tuple[str, ...]
    counted: float

    def to(self, device: torch.device | str) -> ForwardBatch:
        """The same on ``device``."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            sequence_of=self.sequence_of.to(device),
            labels=self.labels.to(device),
            reference=None if self.reference is None else self.reference.to(device),
            token_targets=None if self.token_targets is None else self.token_targets.to(device),
        )


class RewardModelFamily(Protocol):
    """What a kind of reward model adds to the trainer."""

    @property
    def name(self) -> str:
        """Written to ``prm.json``."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether reference log-probabilities must be given."""
        ...

    def record(self, model: nn.Module, batch: ForwardBatch) -> ObjectiveInput:
        """Run the model, with gradients where they are on, and fill the record's tensors."""
        ...


class ImplicitFamily:
    """The log-ratio of a policy to a frozen reference, times beta (arXiv:2412.01981).

    Args:
        beta: Scale.
        reference_free: Take the policy's log-probability alone.
    """

    name = "implicit"

    def __init__(self, beta: float, *, reference_free: bool = False) -> None:
        self.beta = beta
        self.needs_reference = not reference_free

    def record(self, model: nn.Module, batch: ForwardBatch) -> ObjectiveInput:
        """Rewards and log-ratios."""
        log_probs = token_log_probs(model, batch.tokens)
        if self.needs_reference:
            assert batch.reference is not None, "the reference's log-probabilities are missing"
            log_probs = log_probs - batch.reference
        log_ratios = padded(batch, log_probs)
        return ObjectiveInput(
            rewards=response_rewards(log_ratios, self.beta),
            labels=batch.labels,
            lengths=_lengths(batch),
            beta=self.beta,
            log_ratios=log_ratios,
            token_targets=batch.token_targets,
        )


class ValueHeadFamily:
    """A linear head on the last hidden state: a token classifier with one class.

    The reward of a response is the head's output at its last token.
    """

    name = "value-head"
    needs_reference = False

    def record(self, model: nn.Module, batch: ForwardBatch) -> ObjectiveInput:
        """Rewards and the head's values, read at the scored tokens themselves."""
        return _head_record(batch, _read_head(model, batch.tokens))


class TokenHeadFamily:
    """A linear head's output at each token is the token's own value: Q of Q-RM (arXiv:2505.23363).

    The reward of a response is the mean over its tokens, so that tokens share the credit.
    """

    name = "token-head"
    needs_reference = False

    def record(self, model: nn.Module, batch: ForwardBatch) -> ObjectiveInput:
        """Rewards and the tokens' values."""
        values, lengths = padded(batch, _read_head(model, batch.tokens)), _lengths(batch)
        return ObjectiveInput(
            rewards=values.sum(dim=1) / lengths, labels=batch.labels, lengths=lengths, head_values=values
        )


class LabelTokenFamily:
    """Log-odds of a good against a bad label as the next token, read after each step (arXiv:2312.08935).

    The reward of a response is the log-odds at its last token.

    Args:
        name: Of the format.
        label_ids: The good and the bad label's token.
    """

    needs_reference = False

    def __init__(self, name: str, label_ids: tuple[int, int]) -> None:
        self.name = name
        self.label_ids = label_ids

    def record(self, model: nn.Module, batch: ForwardBatch) -> ObjectiveInput:
        """Rewards and the log-odds at every scored token."""
        tokens = batch.tokens
        at_tokens = tokens.source_index + 1
        good, bad = (torch.full_like(tokens.targets, label) for label in self.label_ids)
        twice = replace(
            tokens,
            source_index=torch.cat([at_tokens, at_tokens]),
            targets=torch.cat([good, bad]),
            sequence_index=tokens.sequence_index.repeat(2),
            num_scored=tokens.num_scored * 2,
        )
        good_log_probs, bad_log_probs = token_log_probs(model, twice).chunk(2)
        return _head_record(batch, good_log_probs - bad_log_probs)


def make_family(config: TrainConfig, encoding: Encoding) -> RewardModelFamily:
    """The family that a configuration names."""
    if config.family == "implicit":
        return ImplicitFamily(config.beta, reference_free=config.reference_free)
    if config.family == "value-head":
        return ValueHeadFamily()
    if config.family == "token-head":
        return TokenHeadFamily()
    assert isinstance(encoding, MathShepherdEncoding | RLHFlowEncoding), encoding
    return LabelTokenFamily(config.family, encoding.label_ids)


def _read_head(model: nn.Module, tokens: TokenBatch) -> Float[Tensor, " scored"]:
    """The head's output at each scored token."""
    outputs: Any = model(
        input_ids=tokens.input_ids,
        attention_mask=tokens.attention_mask,
        position_ids=tokens.position_ids,
        use_cache=False,
    )
    at_tokens: Tensor = outputs.logits.float().flatten().index_select(0, tokens.source_index + 1)
    return at_tokens


def _head_record(batch: ForwardBatch, at_tokens: Float[Tensor, " scored"]) -> ObjectiveInput:
    values, lengths = padded(batch, at_tokens), _lengths(batch)
    return ObjectiveInput(
        rewards=values.gather(1, lengths[:, None] - 1)[:, 0],
        labels=batch.labels,
        lengths=lengths,
        head_values=values,
        token_targets=batch.token_targets,
    )


def padded(batch: ForwardBatch, per_token: Float[Tensor, " scored"]) -> Float[Tensor, "responses tokens"]:
    """One row a response of the record, zero after its end."""
    rows = pad_sequence(list(batch.tokens.split(per_token)), batch_first=True)
    return rows.index_select(0, batch.sequence_of)


def _lengths(batch: ForwardBatch) -> Int[Tensor, " responses"]:
    lengths = torch.tensor(batch.tokens.num_scored, device=batch.labels.device)
    return lengths.index_select(0, batch.sequence_of)


def make_forward_batch(
    examples: Sequence[Example],
    encoded: Sequence[Encoded],
    reference: Sequence[Tensor] | None,
    *,
    counted: bool = True,
    packed: bool = False,
) -> ForwardBatch:
    """Lay out one forward pass; identical sequences are computed once.

    Args:
        examples: The record's responses, in its order.
        encoded: Their tokens (which may be mismatched ones).
        reference: Reference log-probabilities of each.
        counted: Whether its losses count.
        packed: All sequences in one row, common prefixes once; the model must support it.
    """
    distinct: dict[tuple[tuple[int, ...], int], int] = {}
    first: list[int] = []
    sequence_of = []
    for index, item in enumerate(encoded):
        key = (item.token_ids, item.scored_start)
        if key not in distinct:
            distinct[key] = len(first)
            first.append(index)
        sequence_of.append(distinct[key])
    token_targets = None
    if any(example.step_targets for example in examples):
        token_targets = torch.full((len(encoded), max(item.num_scored for item in encoded)), torch.nan)
        for row, example in enumerate(examples):
            for position, label in example.step_targets:
                token_targets[row, position] = label
    return ForwardBatch(
        tokens=(pack if packed else pad)([encoded[index] for index in first]),
        sequence_of=torch.tensor(sequence_of),
        labels=torch.tensor([example.label for example in examples]),
        reference=None if reference is None else torch.cat([reference[index] for index in first]),
        token_targets=token_targets,
        ids=tuple(example.id for example in examples),
        counted=float(counted),
    )
