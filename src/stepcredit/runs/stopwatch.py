"""How long the stages of a run took, over all the times that it was begun."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stepcredit.runs.outputs import write_json

WHOLE = "together"
"""The stage that holds all others; where they run side by side it is shorter than their sum."""


class Stopwatch:
    """Seconds of each stage.

    Args:
        path: Where they are kept, so that a run that goes on remembers the earlier ones; ``None`` is nowhere.
    """

    def __init__(self, path: Path | None = None, *, overwrite: bool = False) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}
        if path is not None and path.is_file() and not overwrite:
            self.seconds = json.loads(path.read_text(encoding="utf-8"))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a stage, which may come in several parts or runs."""
        if self.path is not None and name != WHOLE:
            print(f"{name} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        try:
            yield
        finally:
            self.add({name: time.monotonic() - started})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add times of stages."""
        for name, taken in seconds.items():
            self.seconds[name] = round(self.seconds.get(name, 0.0) + taken, 2)
        if self.path is not None:
            write_json(self.path, self.seconds)
