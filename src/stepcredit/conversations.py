"""Conversations as rows hold them, in the fields of OpenAI's interface; no tokenizer is needed here."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from stepcredit.errors import DataError
from stepcredit.types import Message, PromptText, Rollout


def as_messages(prompt: PromptText) -> list[Message]:
    """The prompt as a conversation; a string is one user turn.

    Raises:
        DataError: It has no turns.
    """
    if not prompt and not isinstance(prompt, str):
        raise DataError("the prompt is a conversation without turns", hint="give it at least a user turn")
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def content_text(message: Message) -> str:
    """A turn's content as text: its parts joined, nothing where it is null."""
    content = message["content"]
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(str(part.get("text", "")) for part in content)


def answered(prompt: PromptText, response: str) -> list[Message]:
    """The conversation with its response, finished; a prompt that ends in an assistant's turn is continued.

    Raises:
        DataError: The prompt has no turns.
    """
    messages = as_messages(prompt)
    if messages[-1]["role"] != "assistant":
        return [*messages, {"role": "assistant", "content": response}]
    return [*messages[:-1], {**messages[-1], "content": content_text(messages[-1]) + response}]


def tools_of(extras: Mapping[str, Any], where: str | None = None) -> list[Any] | None:
    """The tools of a row's conversation, in its field ``tools``: a list of schemas, or that as JSON text.

    Raises:
        DataError: They are neither.
    """
    tools = extras.get("tools")
    if isinstance(tools, str) and tools.strip():
        with contextlib.suppress(ValueError, RecursionError):
            tools = json.loads(tools)
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError("field 'tools' must be a list of schemas of functions, or null", where=where)
    return tools


def unwritten_call(messages: Sequence[Message], text: str) -> str | None:
    """The name of a function that is called in the turns and not in the text; ``None`` if all are there."""
    for message in messages:
        for call in message.get("tool_calls") or ():
            function = call.get("function")
            name = str((function if isinstance(function, Mapping) else call).get("name", ""))
            if name not in text:
                return name
    return None


def plain_text(prompt: PromptText) -> str:
    """The prompt as text, for models without a chat format; turns of a conversation are lines."""
    return prompt if isinstance(prompt, str) else "\n".join(map(content_text, prompt))


def for_template(message: Message) -> dict[str, Any]:
    """A turn as templates take it.

    Content is text, calls of tools hold objects where OpenAI's interface writes JSON, and what is null, as
    fields of tables are that other turns have, is left out.
    """
    turn = {name: value for name, value in message.items() if value is not None}
    turn["content"] = content_text(message)
    calls = message.get("tool_calls")
    if calls:
        turn["tool_calls"] = [_with_object(call) for call in calls]
    else:
        turn.pop("tool_calls", None)
    return turn


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError):
        return dict(call)  # Models write what is no JSON, too.
    return {**call, "function": {**function, "arguments": arguments}}


def final_text(rollout: Rollout) -> str:
    """Where the answer is: the response, or of several turns the last one, if it is the assistant's."""
    if rollout.turns is None:
        return rollout.response
    last = rollout.turns[-1]
    return content_text(last) if last["role"] == "assistant" else ""
