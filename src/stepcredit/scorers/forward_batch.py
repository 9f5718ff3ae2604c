"""One forward pass of training: the tensors that a kind's record is made from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stepcredit.logprobs import TokenBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardBatch:
    """The tensors of one forward pass.

    Attributes:
        tokens: The distinct sequences.
        sequence_of: For each response of the record, which distinct sequence it is.
        labels: Outcome label of each response.
        reference: Reference log-probability of each scored token (nats), in the order of
            ``tokens.targets``; ``None`` where rewards are not relative to a reference.
        token_targets: Label of the value at a token, NaN where there is none; ``None`` without step labels.
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

    @property
    def lengths(self) -> Int[Tensor, " responses"]:
        """Scored tokens of each response."""
        lengths = torch.tensor(self.tokens.num_scored, device=self.labels.device)
        return lengths.index_select(0, self.sequence_of)

    def padded(self, per_token: Float[Tensor, " scored"]) -> Float[Tensor, "responses tokens"]:
        """One row per response of the record, zero after its end."""
        rows = pad_sequence(list(self.tokens.split(per_token)), batch_first=True)
        return rows.index_select(0, self.sequence_of)
