"""A source of log-probabilities that is loaded only when a cache lacks something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepcredit.runs import atomic_path, hash_json
from stepcredit.types import Encoded, TokenLogProbs


class DeferredTokenLogProbs:
    """Goes inside a :class:`~stepcredit.logprobs.cache.CachedTokenLogProbs`.

    The cache asks for the fingerprint each time, which only the loaded model can give; so it is kept beside
    the cache's rows, under what it depends on.

    Args:
        identity: Everything that decides the source's fingerprint, known without loading it; JSON-able.
    """

    def __init__(self, load: Callable[[], TokenLogProbs], identity: object, directory: str | Path) -> None:
        self._load = load
        self._file = Path(directory) / f"{hash_json(identity).removeprefix('sha256:')[:32]}.fingerprint"
        self._source: TokenLogProbs | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether the source was needed so far."""
        return self._source is not None

    @property
    def fingerprint(self) -> str:
        """The source's."""
        if self._source is None and self._file.is_file():
            return self._file.read_text(encoding="utf-8")
        fingerprint = self.source.fingerprint
        if not self._file.is_file():
            with atomic_path(self._file) as temporary:
                temporary.write_text(fingerprint, encoding="utf-8")
        return fingerprint

    @property
    def source(self) -> TokenLogProbs:
        """What is deferred; loads it."""
        if self._source is None:
            self._source = self._load()
        return self._source

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        """As the source."""
        return self.source.of(encoded)
