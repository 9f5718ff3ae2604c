"""Log-probabilities of a model in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stepcredit.logprobs.float32_products import computes_in_float32
from stepcredit.logprobs.forward import causal_lm_of, inference_log_probs, input_device
from stepcredit.logprobs.packing import batches_of, pack, pad
from stepcredit.logprobs.support import packing_enabled
from stepcredit.runs import hash_json
from stepcredit.types import Encoded

CODE_VERSION = 1
"""Raised when a change of this room changes numbers beyond rounding; part of every fingerprint."""


def default_token_budget(device_type: str) -> int:
    """Most tokens of a forward pass: what stays in a CPU's large cache, or fills an accelerator."""
    return 2048 if device_type == "cpu" else 16384


class LocalTokenLogProbs:
    """A policy or a reference that this process holds.

    Args:
        model: A causal language model, possibly a PEFT model.
        weights_hash: Content hash of the weights that are used (an adapter's too, unless it is off) and of
            the configuration, for the fingerprint: :func:`stepcredit.checkpoints.model_hash`.
        token_budget: Most tokens, padding included, of one forward pass; by default
            :func:`default_token_budget`. It changes no value.
        adapter_off: Score with the PEFT model's adapter switched off: the base model.
        share_prefixes: Compute common prefixes once, where the model allows it
            (:func:`~stepcredit.logprobs.support.enable_packing`); it changes no value beyond rounding.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        weights_hash: str,
        token_budget: int | None = None,
        adapter_off: bool = False,
        share_prefixes: bool = True,
    ) -> None:
        if token_budget is not None and token_budget < 1:
            raise ValueError(f"token_budget must be at least 1, got {token_budget}")
        if adapter_off and not hasattr(model, "disable_adapter"):
            raise ValueError("adapter_off needs a PEFT model")
        self.model = model
        self.weights_hash = weights_hash
        self.token_budget = token_budget
        self.adapter_off = adapter_off
        self.share_prefixes = share_prefixes

    @property
    def fingerprint(self) -> str:
        """Hash of weights, dtype, attention implementation and code versions.

        With its adapter off a model is its base, and has the base's weights and fingerprint.
        """
        causal_lm = causal_lm_of(self.model)
        return hash_json(
            {
                "weights": self.weights_hash,
                "dtype": str(causal_lm.dtype),
                "attention": causal_lm.config._attn_implementation,
                "share_prefixes": self.share_prefixes,
                **({"products": "float32"} if computes_in_float32(causal_lm) else {}),
                "code": CODE_VERSION,
                "torch": version("torch"),
                "transformers": version("transformers"),
            }
        )

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        """Natural-log probabilities of each sequence's scored tokens, in input order, in nats."""
        # Equal sequences are computed once.
        distinct = list(dict.fromkeys(replace(item, step_ends=()) for item in encoded if item.num_scored > 0))
        place = {item: number for number, item in enumerate(distinct)}
        scores: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(distinct)
        budget = self.token_budget or default_token_budget(self.device.type)
        with self.adapter(), self._packing() as packs:
            for members in batches_of(distinct, budget, packed=packs):
                chosen = [distinct[member] for member in members]
                batch = (pack(chosen) if packs else pad(chosen)).to(self.device)
                log_probs = inference_log_probs(self.model, batch)
                for member, values in zip(members, batch.split(log_probs.cpu()), strict=True):
                    scores[member] = values.numpy()
        nothing = np.zeros(0, np.float32)
        return [
            scores[place[replace(item, step_ends=())]].copy() if item.num_scored > 0 else nothing.copy()
            for item in encoded
        ]

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs."""
        return input_device(self.model)

    def _packing(self) -> contextlib.AbstractContextManager[bool]:
        return packing_enabled(self.model) if self.share_prefixes else contextlib.nullcontext(False)

    def adapter(self) -> contextlib.AbstractContextManager[Any]:
        """Switches the adapter off for the time of a ``with``, where that is asked for."""
        model: Any = self.model
        return model.disable_adapter() if self.adapter_off else contextlib.nullcontext()
