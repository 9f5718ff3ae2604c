"""Responses are grouped by prompt id, so one id must not stand for two problems, nor two ids for one.

The first would compare responses to different problems, the second lets a problem that is learned from be
held out too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from stepcredit.conversations import as_messages, content_text, plain_text
from stepcredit.errors import DataError
from stepcredit.types import PromptText, Rollout


def one_prompt_each(
    rollouts: Iterable[Rollout], where: str | Path | None = None, *, exactly: bool = False
) -> Iterator[Rollout]:
    """The same rollouts, if all with one prompt id are asked one thing.

    Files of several sources that number their problems alike would have one's responses compared with, or
    completed for, another's.

    Args:
        where: The file.
        exactly: Compare whole prompts, not only what the last user turn asks: policies may have been
            asked with system messages or examples of their own.

    Raises:
        DataError: Two with one prompt id are asked different things.
    """
    known: dict[str, PromptText] = {}
    compared = _turns if exactly else _question
    for rollout in rollouts:
        first = known.setdefault(rollout.prompt_id, rollout.prompt)
        if first != rollout.prompt and compared(first) != compared(rollout.prompt):
            raise DataError(
                f"{rollout.id!r} has another prompt than the rows before it with the prompt id "
                f"{rollout.prompt_id!r}",
                where=where,
                hint="give each problem a prompt_id of its own, e.g. with the name of its source",
            )
        yield rollout


def shared_problems(first: Iterable[Rollout], second: Iterable[Rollout]) -> list[str]:
    """Prompt ids of the first whose problem the second has too, under whatever id.

    A problem is what the last user turn asks: system messages and examples before it make no other one.
    """
    known = {_question(rollout.prompt) for rollout in second}
    return list(dict.fromkeys(rollout.prompt_id for rollout in first if _question(rollout.prompt) in known))


def _turns(prompt: PromptText) -> object:
    """All of a prompt; files of some kinds hold null where a turn lacks a field."""
    return [
        {name: value for name, value in turn.items() if value is not None} for turn in as_messages(prompt)
    ]


def _question(prompt: PromptText) -> str:
    asked = (content_text(turn) for turn in reversed(as_messages(prompt)) if turn["role"] == "user")
    return next(asked, plain_text(prompt)).strip()
