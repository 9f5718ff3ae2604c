"""Log-probabilities of a model in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from stepcredit.logprobs.forward import causal_lm_of, inference_log_probs
from stepcredit.logprobs.packing import batches_by_length, pad
from stepcredit.runs import hash_json
from stepcredit.types import Encoded

CODE_VERSION = 1
"""Raised when a change of this room changes numbers beyond rounding; part of every fingerprint."""


class LocalTokenLogProbs:
    """A policy or a reference that this process holds.

    Args:
        model: A causal language model, possibly a PEFT model.
        weights_hash: Content hash of the weights (adapter included), for the fingerprint.
        token_budget: Most tokens, padding included, of one forward pass; it changes no value.
        adapter_off: Score with the PEFT model's adapter switched off: the base model.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        weights_hash: str,
        token_budget: int = 16384,
        adapter_off: bool = False,
    ) -> None:
        if token_budget < 1:
            raise ValueError(f"token_budget must be at least 1, got {token_budget}")
        if adapter_off and not hasattr(model, "disable_adapter"):
            raise ValueError("adapter_off needs a PEFT model")
        self.model = model
        self.weights_hash = weights_hash
        self.token_budget = token_budget
        self.adapter_off = adapter_off

    @property
    def fingerprint(self) -> str:
        """Hash of weights, dtype, attention implementation, adapter switch and code versions."""
        causal_lm = causal_lm_of(self.model)
        return hash_json(
            {
                "weights": self.weights_hash,
                "adapter_off": self.adapter_off,
                "dtype": str(causal_lm.dtype),
                "attention": causal_lm.config._attn_implementation,
                "code": CODE_VERSION,
                "torch": version("torch"),
                "transformers": version("transformers"),
            }
        )

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        """Natural-log probabilities of each sequence's scored tokens, in input order, in nats."""
        scores: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(encoded)
        work = [index for index, item in enumerate(encoded) if item.num_scored > 0]
        device = next(self.model.parameters()).device
        for group in batches_by_length([len(encoded[index].token_ids) for index in work], self.token_budget):
            members = [work[position] for position in group]
            batch = pad([encoded[index] for index in members]).to(device)
            with self._adapter():
                log_probs = inference_log_probs(self.model, batch)
            for index, values in zip(members, batch.split(log_probs.cpu()), strict=True):
                scores[index] = values.numpy()
        return scores

    def _adapter(self) -> contextlib.AbstractContextManager[Any]:
        model: Any = self.model
        return model.disable_adapter() if self.adapter_off else contextlib.nullcontext()
