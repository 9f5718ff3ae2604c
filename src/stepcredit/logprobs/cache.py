"""Token log-probabilities computed once and kept: by content, for every later run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import DataError
from stepcredit.logprobs.shards import KEY_BYTES, RowStore
from stepcredit.types import Encoded, TokenLogProbs

SEQUENCES_BETWEEN_WRITES = 1024
"""Misses computed before they are written: what a kill can lose, and what shares prompts and batches."""


@dataclass(slots=True)
class CacheCounts:
    """What a cache was asked for.

    Attributes:
        hits: Sequences read.
        misses: Distinct sequences that were not there.
        damaged: Distinct sequences that were there, truncated or altered, and computed anew.
    """

    hits: int = 0
    misses: int = 0
    damaged: int = 0


class CachedTokenLogProbs:
    """Wraps any source of log-probabilities with a cache on disk.

    A row's key is a hash of the inner source's fingerprint (weights, dtype, attention implementation, code
    version), the token ids and where scoring starts; so a cache folder may serve any number of models, and a
    row made by other weights is never found. Several processes may use one folder at a time.

    Args:
        inner: What is asked for rows that are not there.
    """

    def __init__(self, inner: TokenLogProbs, directory: str | Path) -> None:
        self.inner = inner
        self.store = RowStore(directory)
        self.counts = CacheCounts()

    @property
    def fingerprint(self) -> str:
        """The inner source's: a cache changes no value."""
        return self.inner.fingerprint

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        """Natural-log probabilities of each sequence's scored tokens, in input order, in nats.

        Raises:
            DataError: The inner source gave NaN or the wrong number of values; nothing of it is kept.
        """
        fingerprint = self.inner.fingerprint
        keys = [_key(fingerprint, item) for item in encoded]
        rows, damaged = self.store.get(keys)
        missing: dict[bytes, Encoded] = {
            key: item for key, item in zip(keys, encoded, strict=True) if key not in rows
        }
        self.counts.hits += sum(key in rows for key in keys)
        self.counts.damaged += len(damaged)
        self.counts.misses += len(missing) - len(damaged)
        work = list(missing.items())
        for start in range(0, len(work), SEQUENCES_BETWEEN_WRITES):
            chunk = work[start : start + SEQUENCES_BETWEEN_WRITES]
            fresh = self.inner.of([item for _, item in chunk])
            for (_, item), row in zip(chunk, fresh, strict=True):
                _check(item, row)
            made = {key: row for (key, _), row in zip(chunk, fresh, strict=True)}
            self.store.put(made)
            rows.update(made)
        # Copies: sequences that occur twice must not share an array.
        return [rows[key].copy() for key in keys]


def _key(fingerprint: str, item: Encoded) -> bytes:
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    digest.update(fingerprint.encode() + b"\0")
    digest.update(item.scored_start.to_bytes(8, "little"))
    digest.update(np.asarray(item.token_ids, dtype="<i8").tobytes())
    for span in item.skipped:
        digest.update(np.asarray(span, dtype="<i8").tobytes())
    return digest.digest()


def _check(item: Encoded, row: NDArray[np.float32]) -> None:
    if row.shape != (item.num_scored,):
        raise DataError(f"expected {item.num_scored} log-probabilities, got an array of shape {row.shape}")
    if np.isnan(row).any():
        raise DataError(
            f"the model gives NaN log-probabilities for a sequence of {len(item.token_ids)} tokens",
            hint="check the weights, or load the model as float32",
        )
