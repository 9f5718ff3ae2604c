"""Prompts as rows hold them: a string, or a conversation; and names for rows that have none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from stepcredit.conversations import content_text
from stepcredit.data.fields import object_at, shown, text_field, wrong
from stepcredit.errors import DataError
from stepcredit.types import Message, PromptText


def prompt_field(row: Mapping[str, Any], field: str, where: str) -> PromptText:
    """A string or a conversation that ends where the response starts.

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
    """Check the turns of a conversation, as OpenAI's interface writes them.

    Raises:
        DataError: A turn lacks its role or content, or holds something other than text.
    """
    for number, message in enumerate(value):
        path = f"{field}[{number}]"
        object_at(message, path, "role and content", where)
        text_field(message, "role", where, f"{path}.", empty=True)
        _check_content(message, where, f"{path}.")
        calls = message.get("tool_calls")
        if calls is not None and not (
            isinstance(calls, list) and all(isinstance(call, dict) for call in calls)
        ):
            raise wrong(message, "tool_calls", "a list of objects or null", where, f"{path}.")
        reasoning = message.get("reasoning_content")
        if reasoning is not None and not isinstance(reasoning, str):
            raise wrong(message, "reasoning_content", "a string or null", where, f"{path}.")
    return value


def _check_content(message: Mapping[str, Any], where: str, path: str) -> None:
    content = message.get("content")
    if isinstance(content, list):
        for part in content:
            kind = part.get("type", "text") if isinstance(part, dict) else None
            if kind != "text" or not isinstance(part.get("text"), str):
                raise DataError(
                    f"field {path + 'content'!r} has a part that is not text: {shown(part)}",
                    where=where,
                    hint="only parts {type: text, text} are read",
                )
    elif content is None and message.get("role") == "assistant" and "content" in message:
        return  # as of a turn that only calls tools
    elif not isinstance(content, str):
        must_be = "a string or a list of text parts"
        raise wrong(message, "content", f"{must_be} (of an assistant: or null)", where, path)


def response_turns(value: list[Any], field: str, where: str) -> tuple[str, tuple[Message, ...] | None]:
    """What follows a prompt, as text, and where that is more than one assistant's text, as turns.

    Raises:
        DataError: They are no turns, or none is the assistant's.
    """
    turns = messages_from_json(value, field, where)
    own = [content_text(turn) for turn in turns if turn["role"] == "assistant"]
    if not own:
        raise DataError(f"field {field!r} has no turn of the assistant", where=where)
    is_one = len(turns) == 1 and not turns[0].get("tool_calls") and not turns[0].get("reasoning_content")
    return "\n\n".join(filter(None, own)), None if is_one else tuple(turns)


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
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
