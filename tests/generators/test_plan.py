"""Prompts in context: a system message and solved examples before each, and shares of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import DataError, UserError
from stepcredit.generators.plan import Plan, in_context, read_examples
from stepcredit.types import Prompt

ASKED = {"role": "user", "content": "1 + 1?"}
SYSTEM = {"role": "system", "content": "Be brief."}
OTHER = {"role": "system", "content": "Think."}


def _examples(tmp_path: Path, *prompts: Any) -> Path:
    path = tmp_path / "examples.jsonl"
    rows = [
        {"id": f"e{number}", "prompt_id": f"e{number}", "prompt": prompt, "response": "2"}
        for number, prompt in enumerate(prompts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _prompt(*turns: Any) -> Prompt:
    return Prompt(id="p", prompt=list(turns) or "2 + 2?")


def _roles(prompt: Prompt) -> list[str]:
    return [turn["role"] if turn["role"] != "system" else str(turn["content"]) for turn in prompt.prompt]  # type: ignore[index]


@pytest.mark.parametrize(
    ("system_prompt", "own", "expected"),
    [
        (None, [], "Be brief."),
        ("Be brief.", [], "Be brief."),
        ("Be kind.", [], "Be kind."),
        (None, [OTHER, ASKED], "Think."),
    ],
)
def test_a_conversation_with_examples_has_one_system_message(
    tmp_path: Path, system_prompt: str | None, own: list[Any], expected: str
) -> None:
    examples = read_examples(_examples(tmp_path, [SYSTEM, ASKED], [SYSTEM, ASKED], "1 + 1?"), system_prompt)
    asked = in_context(_prompt(*own), system_prompt, examples)
    assert _roles(asked) == [expected, *["user", "assistant"] * 3, "user"]


def test_examples_of_different_system_messages_need_one_that_replaces_them(tmp_path: Path) -> None:
    path = _examples(tmp_path, [SYSTEM, ASKED], [OTHER, ASKED])
    with pytest.raises(DataError, match=r"rollout 'e1': the examples have different system messages"):
        read_examples(path)
    assert [turn["role"] for turn in read_examples(path, "Be kind.")] == ["user", "assistant"] * 2


def test_an_examples_turn_that_was_continued_is_one_turn(tmp_path: Path) -> None:
    path = _examples(tmp_path, [ASKED, {"role": "assistant", "content": "It is "}])
    assert read_examples(path) == (ASKED, {"role": "assistant", "content": "It is 2"})


def test_an_example_of_several_turns_keeps_its_calls_and_results(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "c"},
        {"role": "assistant", "content": "It is 2"},
    ]
    path = tmp_path / "examples.jsonl"
    row = {"id": "e", "prompt_id": "e", "prompt": [ASKED], "response": turns}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert read_examples(path) == (ASKED, *turns)


def test_a_share_without_prompts_is_a_mistake_that_is_told(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": "a", "prompt": "1"}\n{"id": "b", "prompt": "2"}\n', encoding="utf-8")
    assert [list(Plan.read(path, shard=f"{number}/2").positions) for number in (1, 2)] == [["a"], ["b"]]
    with pytest.raises(UserError, match=r"--shard: 1/3 holds none of the 2 prompts.*at most 2 shards"):
        Plan.read(path, shard="1/3")
