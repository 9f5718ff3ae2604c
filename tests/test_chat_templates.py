"""What a chat template is given: arguments, the date, tools, turns as OpenAI's interface writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.chat_families import CALL, FAMILIES
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from stepcredit.chat_templates import (
    ChatOptions,
    ChatSettings,
    prompt_text,
    reads_clock,
    render,
    set_chat_settings,
)
from stepcredit.conversations import tools_of
from stepcredit.errors import DataError, UserError
from stepcredit.types import Message

MakeTokenizer = Callable[..., PreTrainedTokenizerBase]
ASKED: list[Message] = [{"role": "user", "content": "What is 3 + 4?"}]


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma"])
def test_turns_as_the_field_writes_them_are_those_that_templates_expect(
    family: str, make_tokenizer: MakeTokenizer
) -> None:
    tokenizer = FAMILIES[family].tokenizer(make_tokenizer)
    as_sent: list[Message] = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "3 + 4?"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL], "tool_call_id": None},
        {"role": "tool", "content": "7", "tool_calls": None},
    ]
    function = {"name": "add", "arguments": {"a": 3, "b": 4}}
    plain: list[Message] = [
        *ASKED,
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": "7"},
    ]
    text = render(tokenizer, as_sent, add_generation_prompt=True)
    assert text == render(tokenizer, plain, add_generation_prompt=True)
    assert 'add {"a": 3, "b": 4}' in text


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma", "marked"])
@pytest.mark.parametrize("start", ["3 + 4 =", "It is \n", ""])
def test_a_started_turn_is_continued(family: str, start: str, make_tokenizer: MakeTokenizer) -> None:
    tokenizer = FAMILIES[family].tokenizer(make_tokenizer)
    header = prompt_text(tokenizer, ASKED)
    assert prompt_text(tokenizer, [*ASKED, {"role": "assistant", "content": start}]) == header + start


def test_what_cannot_be_continued_is_refused(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = FAMILIES["qwen"].tokenizer(make_tokenizer)
    call: Message = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    with pytest.raises(DataError, match="calls a tool, which no response can continue"):
        prompt_text(tokenizer, [*ASKED, call])
    tokenizer.chat_template = "{{ messages[-1]['content'] | upper }}"
    with pytest.raises(DataError, match="changes the assistant's turn"):
        prompt_text(tokenizer, [*ASKED, {"role": "assistant", "content": "so"}])


def test_arguments_of_the_template(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = FAMILIES["qwen"].tokenizer(make_tokenizer)
    assert prompt_text(tokenizer, ASKED).endswith("assistant\n")
    set_chat_settings(tokenizer, ChatOptions(template_arg=("enable_thinking=false",)).settings())
    assert prompt_text(tokenizer, ASKED).endswith("assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template_arg": ("thinking",)}, "'thinking' is not NAME=VALUE"),
        ({"template_arg": ("messages=1",)}, "messages cannot be set"),
        ({"template_date": "29.11.2026"}, "'29.11.2026' is not a date"),
    ],
)
def test_options_that_are_none_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ChatOptions(**options)


def test_a_models_own_settings_win_and_others_are_refused() -> None:
    own = ChatSettings(arguments={"enable_thinking": False}, date="2026-11-29", boundary="apart")
    assert ChatOptions().settings(own) == own
    same = ChatOptions(template_arg=("enable_thinking=false",), template_date="2026-11-29", boundary="apart")
    assert same.settings(own) == own
    for other, message in (
        (ChatOptions(template_arg=("enable_thinking=true",)), r"prm: --template-arg .* is not what it was"),
        (
            ChatOptions(template_date="2026-12-13"),
            "--template-date 2026-12-13 is not what it was trained with",
        ),
        (ChatOptions(boundary="together"), r"--boundary together is not .* \(apart\)"),
    ):
        with pytest.raises(UserError, match=message):
            other.settings(own, where="prm")
    assert same.determining() == {
        "template_arg": ["enable_thinking=false"],
        "template_date": "2026-11-29",
        "boundary": "apart",
    }
    assert ChatOptions().determining() == {}


def test_a_template_that_asks_for_the_date_gets_a_fixed_one(
    make_tokenizer: MakeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = FAMILIES["llama"].tokenizer(make_tokenizer)
    assert reads_clock(tokenizer)
    assert not reads_clock(FAMILIES["qwen"].tokenizer(make_tokenizer))
    before = prompt_text(tokenizer, ASKED)

    class NextCentury(chat_template_utils.datetime):  # type: ignore[misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2126, 1, 2)

    monkeypatch.setattr(chat_template_utils, "datetime", NextCentury)
    assert prompt_text(tokenizer, ASKED) == before
    assert "Today Date: 26 Jul 2024\n" in before
    set_chat_settings(tokenizer, ChatSettings(date="2026-11-29"))
    assert prompt_text(tokenizer, ASKED) == before.replace("26 Jul 2024", "29 Nov 2026")


@pytest.mark.parametrize("form", ["%d %B %Y", "%Y-%m-%d", "%-d/%-m/%y", "%A", "100%%"])
def test_any_form_of_date(form: str, make_tokenizer: MakeTokenizer) -> None:
    from datetime import datetime

    tokenizer: Any = make_tokenizer("chatml")
    tokenizer.chat_template = (
        "\n{% macro today() %}{{ strftime_now('" + form + "') }}{% endmacro %}{{ today() }}"
    )
    set_chat_settings(tokenizer, ChatSettings(date="2026-03-05"))
    expected = datetime(2026, 3, 5).strftime(form)
    assert render(tokenizer, ASKED, add_generation_prompt=False) == "\n" + expected


def test_tools_are_a_list_of_schemas_or_json_of_one() -> None:
    assert tools_of({}) is None
    assert tools_of({"tools": "[]"}) is None
    assert tools_of({"tools": '[{"name": "f"}]'}) == [{"name": "f"}]
    for wrong in ("f", ["f"], {"name": "f"}):
        with pytest.raises(DataError, match="r1: field 'tools' must be a list of schemas"):
            tools_of({"tools": wrong}, "r1")
