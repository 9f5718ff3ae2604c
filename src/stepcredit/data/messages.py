"""Prompts as rows hold them: a string, or a conversation; and names for rows that have none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from stepcredit.data.fields import object_at, text_field, wrong
from stepcredit.errors import DataError
from stepcredit.types import Message, PromptText


def prompt_field(row: Mapping[str, Any], field: str, where: str) -> PromptText:
    """A string or a conversation that awaits the assistant's turn.

    Raises:
        DataError: It is neither, or empty.
    """
    value = row.get(field)
    if isinstance(value, list) and value:
        return messages_from_json(value, field, where)
    if not isinstance(value, str) or not value:
        raise wrong(row, field, "a string or a list of {role, content}, not empty", where)
    return value


def messages_from_json(value: list[Any], field: str, where: str) -> list[Message]:
    """Check a conversation that awaits the assistant's turn.

    Raises:
        DataError: A turn lacks its role or content, or the assistant's turn comes last.
    """
    for number, message in enumerate(value):
        object_at(message, f"{field}[{number}]", "role and content", where)
        for part in ("role", "content"):
            text_field(message, part, where, f"{field}[{number}].", empty=True)
    if value[-1]["role"] == "assistant":
        raise DataError(
            f"field {field!r} ends with an assistant's turn; it must end before the response", where=where
        )
    return value


def plain_prompt(prompt: PromptText) -> str | list[dict[str, Any]]:
    """The prompt as JSON holds it."""
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]


def prompt_name(prompt: PromptText) -> str:
    """A prompt id made from the prompt itself, so that its responses group wherever they stand."""
    return "prompt-" + _digest(prompt)[:16]


def row_name(position: int, *contents: PromptText) -> str:
    """An id for a row without one: its position in the file, from 0, and a hash of what it holds.

    The position makes it unique; with the hash, scores of one file are never joined with the rows of an
    edited one.
    """
    return f"{position}-{_digest(*contents)[:8]}"


def _digest(*contents: PromptText) -> str:
    texts = [
        item if isinstance(item, str) else json.dumps(list(item), ensure_ascii=False, sort_keys=True)
        for item in contents
    ]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
