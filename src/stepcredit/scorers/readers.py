"""Step scores read off a model: label tokens, a classifier's head, or a sequence classifier.

Sequences are padded right and batched by length, which changes no value. Shape legend: B sequences,
T columns, N steps of all sequences.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from stepcredit.encoding import read_positions
from stepcredit.errors import CheckpointError
from stepcredit.logprobs import TokenBatch, batches_by_length, pad
from stepcredit.logprobs.forward import causal_lm_of, input_device, logit_transform_of
from stepcredit.types import Encoded

DEFAULT_TOKEN_BUDGET = 8192
_ROWS_AT_ONCE = 64


class StepReader(ABC):
    """Gives one score a step.

    Args:
        model: In evaluation mode.
        token_budget: Most tokens, padding included, of one forward pass.
    """

    def __init__(self, model: nn.Module, *, token_budget: int = DEFAULT_TOKEN_BUDGET) -> None:
        self.model = model.eval()
        self.token_budget = token_budget

    @torch.no_grad()
    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float64]]:
        """Scores of each sequence's steps, in input order."""
        scores = [np.zeros(0)] * len(encoded)
        device = input_device(self.model)
        lengths = [len(item.token_ids) for item in encoded]
        for group in batches_by_length(lengths, self.token_budget):
            members = [encoded[index] for index in group]
            batch = pad(members, pad_token_id=self.pad_token_id).to(device)
            columns = batch.input_ids.shape[1]
            flat = [row * columns + p for row, item in enumerate(members) for p in read_positions(item)]
            values = self.read(batch, torch.tensor(flat, device=device)).double().cpu()
            parts = torch.split(values, [len(item.step_ends) for item in members])
            for index, part in zip(group, parts, strict=True):
                scores[index] = part.numpy()
        return scores

    @property
    def pad_token_id(self) -> int:
        """What fills the gaps; its value changes nothing."""
        return 0

    @abstractmethod
    def read(self, batch: TokenBatch, positions: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Scores at flat positions (row times columns plus column) of a batch."""


class LabelTokenReader(StepReader):
    """Probability of a good label token against a bad one as the next token, of a causal language model.

    Args:
        model: A causal language model.
        label_ids: The good and the bad label's token.
        token_budget: Most tokens of one forward pass.
    """

    def __init__(
        self, model: nn.Module, label_ids: tuple[int, int], *, token_budget: int = DEFAULT_TOKEN_BUDGET
    ) -> None:
        super().__init__(model, token_budget=token_budget)
        self.label_ids = label_ids

    def read(self, batch: TokenBatch, positions: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """``softmax(logit(good), logit(bad))[good]``, in [0, 1]."""
        causal_lm = causal_lm_of(self.model)
        states = causal_lm.base_model(**_inputs(batch))[0].flatten(0, 1)
        hidden = states.index_select(0, positions.to(states.device))
        head, labels = causal_lm.get_output_embeddings(), list(self.label_ids)
        logits = torch.cat([head(rows)[:, labels].float() for rows in hidden.split(_ROWS_AT_ONCE)])
        probabilities: Tensor = logit_transform_of(causal_lm.config).apply_(logits).softmax(dim=-1)
        return probabilities[:, 0]


class HeadReader(StepReader):
    """A token classifier: the probability of its second class, or the sigmoid of its only output."""

    def read(self, batch: TokenBatch, positions: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Probability that the step is right, in [0, 1]."""
        model: Any = self.model
        logits: Tensor = model(**_inputs(batch)).logits.flatten(0, 1).index_select(0, positions).float()
        if logits.shape[1] == 1:
            return logits[:, 0].sigmoid()
        if logits.shape[1] == 2:
            return logits.softmax(dim=-1)[:, 1]
        raise CheckpointError(
            f"has {logits.shape[1]} classes, not one or two",
            where=model.config.name_or_path or None,
            hint="name a token classifier of right and wrong steps",
        )


class TokenValueReader(StepReader):
    """A token classifier's only output as it is."""

    def read(self, batch: TokenBatch, positions: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The head's output, any real number."""
        model: Any = self.model
        logits: Tensor = model(**_inputs(batch)).logits.flatten(0, 1).index_select(0, positions).float()
        if logits.shape[1] != 1:
            raise CheckpointError(
                f"has {logits.shape[1]} classes, not one", hint="name a token classifier with one output"
            )
        return logits[:, 0]


class SequenceReader(StepReader):
    """A sequence classifier with one output, read by its own rule at the last token that is no padding."""

    def __init__(self, model: nn.Module, *, token_budget: int = DEFAULT_TOKEN_BUDGET) -> None:
        configuration: Any = model.config
        self._padding = configuration.get_text_config().pad_token_id
        # Without a padding token the model takes one sequence at a time.
        super().__init__(model, token_budget=token_budget if self._padding is not None else 1)

    @property
    def pad_token_id(self) -> int:
        """The model's own: it finds the end of a sequence by it."""
        return 0 if self._padding is None else int(self._padding)

    def read(self, batch: TokenBatch, positions: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The model's output, any real number."""
        model: Any = self.model
        logits: Tensor = model(**_inputs(batch)).logits.float()
        assert len(positions) == len(logits), "a sequence classifier's response is one step"
        if logits.shape[1] != 1:
            raise CheckpointError(
                f"has {logits.shape[1]} outputs, not one reward",
                where=model.config.name_or_path or None,
                hint="name a sequence classifier with num_labels 1",
            )
        return logits[:, 0]


def _inputs(batch: TokenBatch) -> dict[str, Any]:
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
