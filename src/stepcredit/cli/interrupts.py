"""A run that is asked to end says so in one line, whatever the interrupted code makes of it."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While it is entered, SIGINT and SIGTERM raise :class:`KeyboardInterrupt`, and are remembered.

    Remembered, because an import that is interrupted may end in any other error.

    Attributes:
        received: The signal that came; ``None`` if none did.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Handlers belong to the main thread.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._raise) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        raise KeyboardInterrupt


def say_interrupted(number: int = signal.SIGINT) -> int:
    """Say it; gives the exit code that shells expect."""
    message = "interrupted; finished work is kept, and the same command continues from there"
    print(f"\nstepcredit: {message}", file=sys.stderr)
    return 128 + number
