"""Errors that a user can fix: each says what is wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path


class UserError(ValueError):
    """A mistake in the input or the call, reported in one line.

    The command line prints it without a traceback and exits with code 2.

    Args:
        problem: What is wrong, with the offending value.
        where: The file, line, field or option concerned, e.g. ``rollouts.jsonl:7``.
        hint: What the user can do about it.
    """

    def __init__(self, problem: str, *, where: str | Path | None = None, hint: str | None = None) -> None:
        self.problem = problem
        self.where = None if where is None else str(where)
        self.hint = hint
        text = problem if self.where is None else f"{self.where}: {problem}"
        if hint is not None:
            text = f"{text.rstrip('.')}. {hint[0].upper()}{hint[1:]}"
        super().__init__(" ".join(text.split()))


class DataError(UserError):
    """A row, file or set of rows that does not say what it must."""


class CheckpointError(UserError):
    """A model directory, tokenizer, template or reference that cannot be used as asked."""


class MissingExtraError(UserError):
    """An optional dependency is not installed; the message names the install command."""

    def __init__(self, package: str, extra: str, *, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed",
            hint=f"install it with: pip install 'stepcredit[{extra}]'",
        )
