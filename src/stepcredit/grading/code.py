"""The ``code`` grader: runs the response's program against unit tests, each in a process of its own."""

from __future__ import annotations

import os
import re
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stepcredit.grading.base import DIFFERS, MATCH, NO_ANSWER, Grade, Grader, GradingItem
from stepcredit.grading.extraction import after_thinking
from stepcredit.grading.pool import Ticket, WorkerPool

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
_LANGUAGES = ("python", "py", "python3", "")
_WINDOW = 64
_MARGIN_SECONDS = 1.0  # so that the limit on processor time strikes first
_MOST_TEXT = 1_000_000  # characters of program and tests together


class CodeGrader(Grader):
    """Right is a program that passes all tests.

    The reference answer holds the tests: Python source that is run after the program and raises where it
    fails (``assert add(1, 2) == 3``), or ``{"inputs": [...], "outputs": [...]}``, texts for the program's
    standard input and what it must print. The program is the last Python block of the response, or the
    whole response where that is a program.

    Programs run without network, without child processes and without signals to others (seccomp), may
    write only in a folder of their own (Landlock, where the kernel has it), and have limits of time,
    processor time and memory. That keeps accidents in; it is no jail for code that means harm.

    Args:
        time_limit: Seconds for a program and its tests, of wall-clock and of processor time.
        memory_limit_mb: Megabytes of address space.
        num_workers: Programs at a time.
    """

    name = "code"

    def __init__(
        self, *, time_limit: float = 10.0, memory_limit_mb: int = 1024, num_workers: int = 2
    ) -> None:
        self._time_limit, self._memory_limit_mb = time_limit, memory_limit_mb
        self._directory = tempfile.TemporaryDirectory(prefix="stepcredit-code-", ignore_cleanup_errors=True)
        self._pool = WorkerPool(
            "stepcredit.grading.sandbox:load",
            [self._directory.name, time_limit],
            num_workers=num_workers,
            time_limit=time_limit + _MARGIN_SECONDS,
            memory_limit=memory_limit_mb << 20,
            fresh=True,
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        """The limits."""
        return {"time_limit": self._time_limit, "memory_limit_mb": self._memory_limit_mb}

    def close(self) -> None:
        """End running programs and remove what they wrote."""
        self._pool.close()
        self._directory.cleanup()

    def grade_all(self, items: Iterable[GradingItem]) -> Iterator[Grade]:
        """Grade in input order."""
        os.makedirs(self._directory.name, mode=0o700, exist_ok=True)
        window: deque[tuple[str | None, Ticket | None]] = deque()
        for item in items:
            program = find_program(item.response)
            fits = program is not None and len(program) + len(item.answer) <= _MOST_TEXT
            window.append((program, self._pool.submit(program, item.answer) if fits else None))
            while window and (len(window) >= _WINDOW or _is_done(window[0][1])):
                yield self._grade(*window.popleft())
        while window:
            yield self._grade(*window.popleft())

    def _grade(self, program: str | None, ticket: Ticket | None) -> Grade:
        if ticket is None:
            return Grade(False, program, NO_ANSWER if program is None else f"{DIFFERS}: too long")
        outcome = self._pool.wait(ticket)
        if outcome.failure is not None:
            return Grade(False, program, outcome.failure)
        failure = outcome.value
        return Grade(failure is None, program, MATCH if failure is None else f"{DIFFERS}: {failure}")


def _is_done(ticket: Ticket | None) -> bool:
    return ticket is None or ticket.done


def find_program(response: str) -> str | None:
    """The last Python block after any thinking, else the whole response where Python can compile it."""
    text = after_thinking(response)
    if text is None:
        return None
    blocks = [text for language, text in _FENCE.findall(text) if language.lower() in _LANGUAGES]
    if blocks:
        return str(blocks[-1]).rstrip()
    try:
        compile(text, "<response>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return text.strip() or None
