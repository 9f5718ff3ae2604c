"""Reference log-probabilities for training: once before it, or beside the policy in each step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from stepcredit.runs import Progress
from stepcredit.types import Encoded, TokenLogProbs

_BLOCK = 512


class StoredReference:
    """Computed once for every distinct sequence, divided among the processes.

    Args:
        source: The reference.
        sequences: All that will be asked for.
        process: Rank.
        num_processes: World size.

    Attributes:
        num_tokens: Tokens passed forward by all processes.
    """

    def __init__(
        self,
        source: TokenLogProbs,
        sequences: Iterable[Encoded],
        *,
        process: int = 0,
        num_processes: int = 1,
    ) -> None:
        distinct = list(dict.fromkeys(_bare(item) for item in sequences))
        # Similar lengths lie together, so that little is padded.
        distinct.sort(key=lambda item: len(item.token_ids))
        mine = distinct[process::num_processes]
        rows: list[Any] = []
        # Every process does as much, so the first one's progress stands for all.
        progress = Progress("reference", len(mine), "responses") if process == 0 else None
        with progress or contextlib.nullcontext():
            for start in range(0, len(mine), _BLOCK):
                block = mine[start : start + _BLOCK]
                rows += zip(block, source.of(block), strict=True)
                if progress is not None:
                    progress.advance(len(block))
        if num_processes > 1:
            rows = gather_object(rows)
        self.num_tokens = sum(len(item.token_ids) for item in distinct)
        self._table = {item: torch.from_numpy(values) for item, values in rows}

    def __call__(self, encoded: Sequence[Encoded]) -> list[Tensor]:
        """Log-probabilities of each sequence's scored tokens, in nats."""
        return [self._table[_bare(item)] for item in encoded]


class LiveReference:
    """Computed anew whenever it is asked for.

    Args:
        source: The reference.
    """

    def __init__(self, source: TokenLogProbs) -> None:
        self.source = source

    def __call__(self, encoded: Sequence[Encoded]) -> list[Tensor]:
        """Log-probabilities of each sequence's scored tokens, in nats."""
        return [torch.from_numpy(values) for values in self.source.of(encoded)]


class AutocastLogProbs:
    """Runs a source under the autocast that training uses, so that both sides round alike.

    Args:
        source: The reference.
        device: Device type.
        dtype: Autocast dtype; ``None`` is off.
    """

    def __init__(self, source: TokenLogProbs, device: str, dtype: torch.dtype | None) -> None:
        self.source, self.device, self.dtype = source, device, dtype

    @property
    def fingerprint(self) -> str:
        """The source's, and the autocast dtype."""
        return f"{self.source.fingerprint}/autocast:{self.dtype}" if self.dtype else self.source.fingerprint

    def of(self, encoded: Sequence[Encoded]) -> list[Any]:
        """As the source."""
        autocast: Any = contextlib.nullcontext()
        if self.dtype is not None:
            autocast = torch.autocast(self.device, self.dtype)
        with autocast:
            return self.source.of(encoded)


def _bare(item: Encoded) -> Encoded:
    """Step ends decide nothing about log-probabilities."""
    return Encoded(item.token_ids, item.scored_start)
