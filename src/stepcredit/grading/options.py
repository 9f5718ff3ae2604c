"""How final answers are judged: the options that commands with a grader have in common."""

from __future__ import annotations

import os
from dataclasses import dataclass

from stepcredit.grading.base import Grader
from stepcredit.grading.registry import make_grader
from stepcredit.options import option


@dataclass(frozen=True, kw_only=True)
class GraderOptions:
    """The grader and its settings."""

    grader: str = option(
        "math, numeric, exact, choice, code, reasoning-gym or python:module:function",
        default="math",
        metavar="NAME",
    )
    answer_pattern: str | None = option(
        "regular expression that finds the final answer: its first group, at its last match",
        default=None,
        metavar="REGEX",
    )
    tolerance: float | None = option(
        "numeric: largest relative difference that counts as equal; default is 1e-6", default=None
    )
    time_limit: float | None = option(
        "seconds per answer; one that takes longer is wrong; default is 5 for math, 10 for code, 30 for "
        "reasoning-gym and functions",
        default=None,
    )
    memory_limit: int | None = option("code: megabytes of memory per program; default is 1024", default=None)
    allow_unsafe_code: bool = option(
        "code: run programs even if this system cannot sandbox them; use it only in a container",
        default=False,
    )
    num_workers: int | None = option("number of worker processes; default is one per core", default=None)


def grader_of(options: GraderOptions) -> Grader:
    """Make the grader; use it as a context manager.

    Raises:
        UserError: There is no such grader, or it has no such option.
    """
    return make_grader(
        options.grader,
        num_workers=options.num_workers or os.cpu_count() or 1,
        answer_pattern=options.answer_pattern,
        tolerance=options.tolerance,
        time_limit=options.time_limit,
        memory_limit_mb=options.memory_limit,
        allow_unsafe_code=options.allow_unsafe_code or None,
    )
