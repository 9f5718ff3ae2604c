"""The ``code`` grader: runs the response's program against unit tests, shut in."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stepcredit.errors import UserError
from stepcredit.grading.base import DIFFERS, MATCH, NO_ANSWER, RULES, Grade, GradingItem
from stepcredit.grading.pool import Pending, PooledGrader, WorkerPool
from stepcredit.grading.programs.confinement import what_is_missing
from stepcredit.grading.programs.supervisor import START_SECONDS
from stepcredit.thinking import after_thinking

_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>\w*)[^\n]*\n"
    r"(?P<code>.*?)(?:^[ \t]*(?P=fence)|(?P<open>\Z))",
    re.MULTILINE | re.DOTALL,
)
_LANGUAGES = ("python", "py", "python3")
_MARGIN_SECONDS = 15.0
_MOST_TEXT = 1_000_000  # characters of program and tests together


class CodeGrader(PooledGrader):
    """Right is a program that passes all tests.

    The reference answer holds the tests: Python source that is run after the program and raises where it
    fails (``assert add(1, 2) == 3``), or ``{"inputs": [...], "outputs": [...]}``, texts for the program's
    standard input and what it must print. The program is the last Python block of the response, or the
    whole response where that is a program.

    The program runs in a process of its own, without network, child processes and signals; it may read Python
    and write in a folder of its own (``docs/grading.md``). The tests run in another process, which calls the
    program's functions through a pipe, so that it can fake none of their checks.

    Args:
        time_limit: Seconds for a program and its tests, of wall-clock and of processor time.
        memory_limit_mb: Megabytes of address space.
        allow_unsafe_code: Run programs even where this system cannot shut them in.

    Raises:
        UserError: This system cannot shut programs in, and ``allow_unsafe_code`` is off.
    """

    name = "code"
    _window = 64

    def __init__(
        self,
        *,
        time_limit: float = 10.0,
        memory_limit_mb: int = 1024,
        allow_unsafe_code: bool = False,
        num_workers: int = 2,
    ) -> None:
        missing = what_is_missing()
        if missing and not allow_unsafe_code:
            raise UserError(
                f"programs cannot be sandboxed here: this system lacks {' and '.join(missing)}",
                where="--grader code",
                hint="run it in a container that holds nothing of value, with --allow-unsafe-code",
            )
        self._time_limit, self._memory_limit_mb = time_limit, memory_limit_mb
        self._directory = tempfile.TemporaryDirectory(prefix="stepcredit-code-", ignore_cleanup_errors=True)
        self._pool = WorkerPool(
            "stepcredit.grading.programs.supervisor:load",
            [self._directory.name, time_limit, memory_limit_mb << 20, allow_unsafe_code],
            num_workers=num_workers,
            time_limit=START_SECONDS + time_limit + _MARGIN_SECONDS,  # a program's own is kept by the worker
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        """The limits, and the version of the rules by which programs are found."""
        return {"time_limit": self._time_limit, "memory_limit_mb": self._memory_limit_mb, "rules": RULES}

    def close(self) -> None:
        """End running programs and remove what they wrote."""
        self._pool.close()
        self._directory.cleanup()

    def grade_all(self, items: Iterable[GradingItem]) -> Iterator[Grade]:
        """Grade in input order."""
        os.makedirs(self._directory.name, exist_ok=True)
        os.chmod(self._directory.name, 0o711)  # programs of another user pass through
        yield from super().grade_all(items)

    def _begin(self, item: GradingItem) -> Grade | Pending:
        program = find_program(item.response)
        if program is None:
            return Grade(False, None, NO_ANSWER)
        if len(program) + len(item.answer) > _MOST_TEXT:
            return Grade(False, program, f"{DIFFERS}: too long")
        ticket = self._pool.submit(program, item.answer)
        return Pending(ticket, program, lambda reason: Grade(reason == MATCH, program, str(reason)))


def find_program(response: str) -> str | None:
    """The last Python block after any thinking, else the whole response where Python can compile it.

    A block that names no language counts where none is called Python: beside one, it is what that prints.
    The end of a Python block may be missing, as of a response that a stop sequence ended.
    """
    text = after_thinking(response)
    if text is None:
        return None
    fences = list(_FENCE.finditer(text))
    named = [fence for fence in fences if fence["language"].lower() in _LANGUAGES]
    blocks = named or [fence for fence in fences if not fence["language"] and fence["open"] is None]
    if blocks:
        # As Markdown has it, lines lose the indentation of their fence, as in an item of a list.
        indent = len(blocks[-1]["indent"])
        return re.sub(rf"(?m)^[ \t]{{0,{indent}}}", "", blocks[-1]["code"]).rstrip()
    try:
        compile(text, "<response>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return text.strip() or None
