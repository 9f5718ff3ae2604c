"""Progress on stderr with rate and time left; silent lines now and then where there is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Shows how far a long piece of work is.

    Args:
        title: What is being done.
        total: How many units there are in all; ``None`` if unknown.
        unit: Name of a unit, plural.
        done: Units that an earlier run already did; they do not count towards the rate.
        every: Seconds between lines where stderr is not a terminal.
    """

    def __init__(
        self, title: str, total: int | None, unit: str = "rows", *, done: int = 0, every: float = 10.0
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._first = done
        self._extra = ""
        self._terminal = sys.stderr.isatty()
        self._interval = 0.1 if self._terminal else every
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal or time.monotonic() - self._started > self._interval:
            self._show(last=True)

    def advance(self, by: int = 1, extra: str = "") -> None:
        """Count ``by`` more units; ``extra`` is shown at the end of the line."""
        self.done += by
        self._extra = extra or self._extra
        if time.monotonic() - self._shown >= self._interval:
            self._show()

    def line(self) -> str:
        """The current line: title, count, rate, time left."""
        elapsed = time.monotonic() - self._started
        rate = (self.done - self._first) / elapsed if elapsed > 0 else 0.0
        text = f"{self.title}: {self.done:,}"
        if self.total is not None:
            text += f"/{self.total:,}"
        text += f" {self.unit}, {rate:,.1f}/s"
        if self.total is not None and rate > 0 and self.done < self.total:
            text += f", {_duration((self.total - self.done) / rate)} left"
        else:
            text += f", {_duration(elapsed)} taken"
        return text + (f", {self._extra}" if self._extra else "")

    def _show(self, *, last: bool = False) -> None:
        self._shown = time.monotonic()
        if self._terminal:
            sys.stderr.write(f"\r\x1b[2K{self.line()}" + ("\n" if last else ""))
        else:
            sys.stderr.write(self.line() + "\n")
        sys.stderr.flush()


def warn(message: str) -> None:
    """One line on stderr for something that the user should know but that is not wrong."""
    sys.stderr.write(f"warning: {message}\n")
    sys.stderr.flush()
