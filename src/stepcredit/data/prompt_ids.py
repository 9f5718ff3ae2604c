"""Responses are grouped by prompt id, so one id must not stand for two problems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from stepcredit.errors import DataError
from stepcredit.types import PromptText, Rollout


def one_prompt_each(rollouts: Iterable[Rollout], where: str | Path | None = None) -> Iterator[Rollout]:
    """The same rollouts, if all with one prompt id have one prompt.

    Files of several sources that number their problems alike would have one's responses compared with, or
    completed for, another's.

    Args:
        where: The file.

    Raises:
        DataError: Two with one prompt id have different prompts.
    """
    known: dict[str, PromptText] = {}
    for rollout in rollouts:
        first = known.setdefault(rollout.prompt_id, rollout.prompt)
        if first != rollout.prompt and _turns(first) != _turns(rollout.prompt):
            raise DataError(
                f"{rollout.id!r} has another prompt than the rows before it with the prompt id "
                f"{rollout.prompt_id!r}",
                where=where,
                hint="give each problem a prompt_id of its own, e.g. with the name of its source",
            )
        yield rollout


def _turns(prompt: PromptText) -> object:
    """What two prompts are compared by: files of some kinds hold null where a turn lacks a field."""
    if isinstance(prompt, str):
        return prompt
    return [{name: value for name, value in turn.items() if value is not None} for turn in prompt]
