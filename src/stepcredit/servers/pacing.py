"""When to ask a server again: growing waits after failures, and what its rate-limit headers say."""

from __future__ import annotations

import email.utils
import math
import random
import re
import threading
import time
from collections.abc import Mapping

FIRST_WAIT = 0.5
LONGEST_WAIT = 60.0
LONGEST_HOLD = 600.0
"""Seconds; a server that asks for more is asked again after this long."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float | None:
    """Seconds of a reset header: a number, or parts such as ``6m0s`` and ``20ms``."""
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            return None
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait before the next request, ``None`` if it does not ask.

    ``Retry-After`` comes first (in ms, seconds or as a date); then, where no request or token is left, the
    time after which the limit is reset.
    """
    if milliseconds := parse_duration(headers.get("retry-after-ms", "")):
        return milliseconds / 1000
    if retry_after := headers.get("retry-after"):
        if (seconds := parse_duration(retry_after)) is not None:
            return seconds
        date = email.utils.parsedate_tz(retry_after)
        if date is not None:
            return max(0.0, email.utils.mktime_tz(date) - time.time())
    waits = [
        parse_duration(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    return max((wait for wait in waits if wait is not None), default=None)


class Pace:
    """Shared by the threads that talk to one server: all of them wait where it asks for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resume_at = 0.0
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether the work has been called off."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Call off the work: nobody waits any longer."""
        self._stopped.set()

    def wait(self) -> None:
        """Return when requests may be sent."""
        while not self.stopped and (left := self._resume_at - time.monotonic()) > 0:
            self._stopped.wait(left)

    def hold(self, seconds: float) -> bool:
        """Let nobody send for ``seconds``; False if nobody may for about as long already."""
        with self._lock:
            resume_at = time.monotonic() + seconds
            is_new = resume_at > self._resume_at + 0.1 * seconds
            self._resume_at = max(self._resume_at, resume_at)
            return is_new

    def next_wait(self, failures: int) -> float:
        """Seconds to wait after the given number of failures in a row: doubling, with jitter."""
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures - 1, 30))
        return longest * random.uniform(0.5, 1.0)

    def sleep(self, seconds: float) -> None:
        """Wait, this thread only, unless the work is called off."""
        self._stopped.wait(seconds)
