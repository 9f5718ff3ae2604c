"""A local model, run over batches of rows that go on from what a cache holds."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from stepcredit.generators.prompts import Opening
from stepcredit.generators.stopping import StopStrings
from stepcredit.keyvalues.rows import RowCache
from stepcredit.keyvalues.shared_prompts import SharedPrompt, sharing
from stepcredit.keyvalues.store import Held, PrefixStore
from stepcredit.logprobs.segments import IMPLEMENTATION
from stepcredit.logprobs.support import agree_but_for_rounding
from stepcredit.runs import Ledger

LEAST_SHARED_TOKENS = 32
LEAST_COPIED_TOKENS = 2048
"""Tokens of a prompt, and of its copies for all samples, below which copies are about as fast."""
_EQUAL_ATTENTION = ("sdpa", "eager", IMPLEMENTATION)


class Runner:
    """Runs a model over batches of rows.

    Args:
        model: A transformers causal language model, in evaluation mode.
        store: Keeps what was read and drawn, for requests that go on from there.
    """

    def __init__(
        self,
        model: Any,
        end_tokens: Iterable[int],
        stop_strings: StopStrings,
        store: PrefixStore | None = None,
    ) -> None:
        self.model = model
        self.store = store
        self.end_tokens = np.asarray(sorted(set(end_tokens)), dtype=np.int64)
        self.stop_strings = stop_strings
        self.device = next(model.parameters()).device
        self.ledger = Ledger(model_parameters=sum(weight.numel() for weight in model.parameters()))
        self.computed_tokens = 0
        accepted = inspect.signature(model.forward).parameters
        self._positions = "position_ids" in accepted
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._can_share: bool | None = None

    def held(self, opening: Sequence[int]) -> Held:
        """What need not be read of an opening: all but its last token at most, which gives the logits."""
        return Held((), 0) if self.store is None else self.store.longest(opening[:-1])

    def shares(self, opening: Opening, samples: int) -> bool:
        """Whether an opening's keys and values are held once for all of its samples."""
        length = len(opening.token_ids)
        if samples < 2 or length < LEAST_SHARED_TOKENS or length * samples < LEAST_COPIED_TOKENS:
            return False
        if self._can_share is None:
            self._can_share = self._try_sharing()
        return self._can_share

    def forward(
        self,
        cache: RowCache,
        token_ids: Int64[np.ndarray, "rows tokens"],
        padding: Int64[np.ndarray, " rows"],
        prompts: Sequence[SharedPrompt] = (),
    ) -> Float[Tensor, "rows vocab"]:
        """Run ``token_ids`` after what the cache holds; logits of the last token.

        Args:
            cache: Grows by the given tokens.
            token_ids: New tokens, aligned at the right.
            padding: Unused columns at the left of each row, counted from the cache's first column.
            prompts: What comes before the cache's rows.
        """
        rows, width = token_ids.shape
        first, last = cache.columns, cache.columns + width
        inputs: dict[str, Any] = dict(self._last_only)
        if self._positions:
            positions = np.maximum(np.arange(first, last)[None, :] - padding[:, None], 0)
            for prompt in prompts:
                positions[prompt.rows.numpy()] += prompt.length
            inputs["position_ids"] = torch.from_numpy(positions).to(self.device)
        if padding.any() or not self._positions:
            mask = np.arange(last)[None, :] >= padding[:, None]
            inputs["attention_mask"] = torch.from_numpy(mask.astype(np.int64)).to(self.device)
        with sharing(self.model, prompts) as shared:
            output = self.model(
                input_ids=torch.from_numpy(token_ids).to(self.device),
                past_key_values=cache.library,
                use_cache=True,
                **inputs,
                **shared,
            )
        cache.extend(rows, width)
        self.computed_tokens += int((last - np.maximum(padding, first)).clip(0).sum())
        logits: Tensor = output.logits[:, -1]
        return logits

    def _try_sharing(self) -> bool:
        """Whether a few tokens come out the same after a shared prompt."""
        config = self.model.config.get_text_config(decoder=True)
        usual = self.device.type == "cpu" and config._attn_implementation in _EQUAL_ATTENTION
        if not (usual and self._positions and RowCache(self.model.config).is_plain):
            return False
        computed = self.computed_tokens
        try:
            expected, shared = (self._probe(share=share) for share in (False, True))
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
            return False
        finally:
            self.computed_tokens = computed
        return agree_but_for_rounding(shared, expected, expected.dtype)

    def _probe(self, *, share: bool) -> Float[Tensor, "rows vocab"]:
        """Log-probabilities after two prompts of different lengths, each with two tokens more."""
        vocabulary = self.model.config.get_text_config(decoder=True).vocab_size
        tokens = (7 * np.arange(18) + 3).reshape(2, 9) % vocabulary
        padding = np.asarray([0, 4])
        cache = RowCache(self.model.config)
        prompts: list[SharedPrompt] = []
        with torch.inference_mode():
            self.forward(cache, tokens[:, :7], padding)
            if share:
                states = cache.take(padding, 2, 2)
                prompts = [SharedPrompt(of_row, torch.tensor([row])) for row, of_row in enumerate(states)]
                padding = np.zeros_like(padding)
            self.forward(cache, tokens[:, 7:8], padding, prompts)
            return self.forward(cache, tokens[:, 8:], padding, prompts).log_softmax(dim=-1)
