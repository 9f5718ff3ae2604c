"""Log-probabilities of sequences that grow: what was read before is not read again.

In a search each partial response is scored again and again, a step longer each time, and forks. Here the keys
and values of what was scored are kept (:class:`~stepcredit.keyvalues.PrefixStore`), with each token's
log-probability, so that a step costs its own tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray

from stepcredit.keyvalues.rows import RowCache, States
from stepcredit.keyvalues.store import Held, PrefixStore
from stepcredit.logprobs.forward import causal_lm_of, enable_log_probs
from stepcredit.logprobs.local import LocalTokenLogProbs, default_token_budget
from stepcredit.logprobs.packing import TokenBatch
from stepcredit.types import Encoded, TokenLogProbs

STORE_TOKENS = 1 << 18
"""Tokens of all live sequences that are kept at most."""

_LITTLE_PADDING = 32
"""Padding tokens that cost less than another pass; with more, at most half of a pass is padding."""


def growing(source: TokenLogProbs, max_tokens: int = STORE_TOKENS) -> TokenLogProbs:
    """A source that remembers what it has read, where ``source`` is a model in this process that can.

    Others (servers, caches on disk, models with a recurrent state) are returned as they are: the numbers are
    the same, but for rounding, and each call reads its sequences whole.
    """
    if not isinstance(source, LocalTokenLogProbs):
        return source
    try:
        RowCache(causal_lm_of(source.model).config)
    except NotImplementedError:
        return source
    return GrowingTokenLogProbs(source, PrefixStore(max_tokens))


class GrowingTokenLogProbs:
    """A :class:`~stepcredit.types.TokenLogProbs` over a local model that reads each token once.

    Args:
        source: The model, and whether its adapter is on.
        store: What has been read; one store per model.
    """

    def __init__(self, source: LocalTokenLogProbs, store: PrefixStore) -> None:
        self.source, self.store = source, store
        self.computed_tokens = 0

    @property
    def fingerprint(self) -> str:
        """The source's: the numbers are its own, but for rounding."""
        return self.source.fingerprint

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        """Natural-log probabilities of each sequence's scored tokens, in input order, in nats."""
        scored = [item for item in encoded if item.num_scored > 0]
        wholes = dict.fromkeys(item.token_ids for item in scored)
        starts = dict.fromkeys(item.token_ids[: item.scored_start] for item in scored)
        with torch.no_grad(), self.source.adapter():
            # Prompts first, so that responses to one prompt find it read.
            self._read([start for start in starts if len(start) > 1])
            known = self._read(list(wholes))
        return [
            known[item.token_ids][list(item.scored_places)]
            if item.num_scored > 0
            else np.zeros(0, np.float32)
            for item in encoded
        ]

    def _read(self, sequences: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], NDArray[np.float32]]:
        """Each token's log-probability after those before it; NaN for a sequence's first token."""
        numbers: dict[tuple[int, ...], NDArray[np.float32]] = {}
        unread: list[tuple[tuple[int, ...], Held]] = []
        for sequence in sequences:
            held = self.store.longest(sequence)
            if held.length == len(sequence):
                numbers[sequence] = held.numbers()
            else:
                unread.append((sequence, held))
        for batch in self._batches(unread):
            numbers.update(self._forward(batch))
        return numbers

    def _batches(
        self, unread: Sequence[tuple[tuple[int, ...], Held]]
    ) -> Iterator[list[tuple[tuple[int, ...], Held]]]:
        """Sequences of which about equally much is unread, within the token budget of a pass."""
        budget = self.source.token_budget or default_token_budget(self.source.device.type)
        ordered = sorted(unread, key=lambda item: len(item[0]) - item[1].length)
        batch: list[tuple[tuple[int, ...], Held]] = []
        tokens = 0
        for sequence, held in ordered:
            width = len(sequence) - held.length + 1
            padding = width * len(batch) - tokens
            if batch and (width * (len(batch) + 1) > budget or padding > max(tokens, _LITTLE_PADDING)):
                yield batch
                batch, tokens = [], 0
            batch.append((sequence, held))
            tokens += width
        if batch:
            yield batch

    def _forward(
        self, batch: Sequence[tuple[tuple[int, ...], Held]]
    ) -> dict[tuple[int, ...], NDArray[np.float32]]:
        """Read what is unread of each row and keep it."""
        lengths = np.asarray([len(sequence) for sequence, _ in batch])
        columns = int(lengths.max())
        # The token before the first unread one is read again: its hidden state predicts that one.
        first = max(0, columns - max(len(sequence) - held.length for sequence, held in batch) - 1)
        padding = columns - lengths
        causal_lm = causal_lm_of(self.source.model)
        cache = RowCache(causal_lm.config, len(batch), columns)
        self._begin(cache, batch, padding, first)
        tokens = np.zeros((len(batch), columns), dtype=np.int64)
        for row, (sequence, _) in enumerate(batch):
            tokens[row, padding[row] :] = sequence
        scored = self._run(cache, tokens, padding, first)
        cache.extend(len(batch), columns - first)
        self.computed_tokens += int((columns - np.maximum(padding, first)).sum())
        numbers: dict[tuple[int, ...], NDArray[np.float32]] = {}
        for row, (sequence, held) in enumerate(batch):
            fresh = scored[row, max(held.length, 1) + padding[row] - first :]
            own = np.concatenate([held.numbers(), np.full(int(held.length == 0), np.nan, np.float32), fresh])
            self.store.keep(sequence, partial(_read_row, cache, row, int(padding[row])), own)
            numbers[sequence] = own
        return numbers

    @staticmethod
    def _begin(
        cache: RowCache,
        batch: Sequence[tuple[tuple[int, ...], Held]],
        padding: Int64[np.ndarray, " rows"],
        columns: int,
    ) -> None:
        like = next((held for _, held in batch if held.length), None)
        if columns == 0 or like is None:
            return
        cache.begin(len(batch), columns, like.parts[0][0].states)
        for row, (_, held) in enumerate(batch):
            held.copy_to(cache, row, int(padding[row]), columns - int(padding[row]))

    def _run(
        self,
        cache: RowCache,
        tokens: Int64[np.ndarray, "rows columns"],
        padding: Int64[np.ndarray, " rows"],
        first: int,
    ) -> NDArray[np.float32]:
        """Log-probability of the token in each column from ``first`` on; NaN in column ``first``."""
        rows, columns = tokens.shape
        width = columns - first
        places = np.arange(rows)[:, None] * width + np.arange(width - 1)[None, :]
        targets = torch.from_numpy(tokens[:, first + 1 :].reshape(-1))
        positions = np.maximum(np.arange(first, columns)[None, :] - padding[:, None], 0)
        device = self.source.device
        # Padding is projected too and thrown away: rows of a batch have about as many unread tokens.
        scored = TokenBatch(
            input_ids=torch.from_numpy(tokens[:, first:]),
            attention_mask=torch.from_numpy(
                (np.arange(columns)[None, :] >= padding[:, None]).astype(np.int64)
            ),
            position_ids=torch.from_numpy(positions),
            source_index=torch.from_numpy(places.reshape(-1)),
            token_index=torch.from_numpy(places.reshape(-1) + 1),
            targets=targets,
            sequence_index=torch.arange(rows).repeat_interleave(width - 1),
            num_scored=(width - 1,) * rows,
        ).to(device)
        model: Any = self.source.model
        was_training = model.training
        enable_log_probs(model)
        model.eval()
        try:
            log_probs = model(
                input_ids=scored.input_ids,
                attention_mask=scored.attention_mask,
                position_ids=scored.position_ids,
                past_key_values=cache.library,
                use_cache=True,
                scored=scored,
                chunk_size=None,
            )
        finally:
            model.train(was_training)
        result = np.full((rows, width), np.nan, np.float32)
        result[:, 1:] = log_probs.float().cpu().numpy().reshape(rows, width - 1)
        return result


def _read_row(cache: RowCache, row: int, padding: int, first: int, last: int) -> States:
    return cache.read(row, padding + first, padding + last)
