"""What the readers of foreign rows share: fields with exact errors, names for what has none, steps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from stepcredit.data.records import ROLLOUT_FIELDS, messages_from_json, shown
from stepcredit.errors import DataError
from stepcredit.types import PromptText, StepLabel

STEP_SEPARATOR = "\n\n"
"""Joins the steps of formats that list them: a step may itself hold line ends."""


def prompt_name(prompt: PromptText) -> str:
    """A prompt id made from the prompt itself, so that its responses group wherever they stand."""
    text = prompt if isinstance(prompt, str) else json.dumps(list(prompt), ensure_ascii=False, sort_keys=True)
    return "prompt-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def others(row: Mapping[str, Any], *known: str) -> dict[str, Any]:
    """Fields that the record has no place for; they become its extras.

    One that bears the name of a record's field means something else there, and is called ``source_...``.
    """
    return {
        f"source_{name}" if name in ROLLOUT_FIELDS else name: value
        for name, value in row.items()
        if name not in known
    }


def text_field(row: Mapping[str, Any], field: str, where: str, *, empty: bool = False) -> str:
    """A string.

    Raises:
        DataError: It is none, or it is empty and ``empty`` is off.
    """
    value = row.get(field)
    if not isinstance(value, str) or not (value or empty):
        raise wrong(row, field, "a string" if empty else "a string that is not empty", where)
    return value


def texts_field(row: Mapping[str, Any], field: str, where: str) -> list[str]:
    """A list of strings, at least one.

    Raises:
        DataError: It is none.
    """
    value = row.get(field)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise wrong(row, field, "a list of strings, not empty", where)
    return value


def optional_text(row: Mapping[str, Any], field: str, where: str) -> str | None:
    """A string or null; numbers, which some files hold here, become text.

    Raises:
        DataError: It is something else.
    """
    value = row.get(field)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise wrong(row, field, "a string or null", where)
    return value


def name_field(row: Mapping[str, Any], field: str, where: str) -> str:
    """An id, a string or a whole number.

    Raises:
        DataError: It is neither.
    """
    value = row.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_field(row, field, where)


def truth(value: Any) -> bool | None:
    """The verdict that a value states: a boolean, or a number that is 0 or 1; ``None`` if it is neither."""
    if isinstance(value, bool):
        return value
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def truth_field(row: Mapping[str, Any], field: str, where: str) -> bool:
    """A verdict.

    Raises:
        DataError: It is neither a boolean nor 0 or 1.
    """
    value = truth(row.get(field))
    if value is None:
        raise wrong(row, field, "true or false (or 1 or 0)", where)
    return value


def prompt_field(row: Mapping[str, Any], field: str, where: str) -> PromptText:
    """A string or a conversation.

    Raises:
        DataError: It is neither, or empty.
    """
    value = row.get(field)
    if isinstance(value, list) and value:
        return messages_from_json(value, field, where)
    return text_field(row, field, where)


def wrong(row: Mapping[str, Any], field: str, must_be: str, where: str) -> DataError:
    """The error that says what a field must be."""
    if field not in row:
        return DataError(f"field {field!r} is missing; it must be {must_be}", where=where)
    return DataError(f"field {field!r} must be {must_be}, not {shown(row[field])}", where=where)


def joined_steps(steps: Sequence[str], separator: str = STEP_SEPARATOR) -> tuple[str, list[int]]:
    """The response that the steps make, and where each ends (the separator belongs to the step it ends)."""
    pieces = [step + separator for step in steps[:-1]] + list(steps[-1:])
    return "".join(pieces), list(accumulate(map(len, pieces)))


def labels_until_error(ends: Sequence[int], first_wrong: int | None) -> tuple[StepLabel, ...]:
    """Labels where only the first wrong step is known: nothing is said of the steps after it."""
    if first_wrong is None:
        return tuple(StepLabel(end, 1.0) for end in ends)
    return tuple(
        StepLabel(end, float(index < first_wrong)) for index, end in enumerate(ends[: first_wrong + 1])
    )
