"""Responses of several turns: which tokens are the assistant's, beside a count by characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.chat_families import ASKED, CALL, FAMILIES, QWEN_OPENED, TOOL, TURNS
from transformers import PreTrainedTokenizerBase

from stepcredit.chat_templates import ChatSettings, set_chat_settings
from stepcredit.encoding import ChatEncoding, EncodingError, read_positions
from stepcredit.errors import CheckpointError
from stepcredit.steps import StepRule
from stepcredit.types import Message, Rollout

MakeTokenizer = Callable[..., PreTrainedTokenizerBase]
NEWLINE = StepRule("newline")


def trajectory(turns: Sequence[Message], **fields: Any) -> Rollout:
    values = {"prompt": ASKED, "response": "", "extras": {"tools": [TOOL]}, "turns": tuple(turns), **fields}
    return Rollout(id="r", prompt_id="p", **values)


def by_characters(
    family: str, messages: Sequence[Message], first: int, tokenizer: Any
) -> tuple[list[int], list[int]]:
    """All tokens up to the last that the assistant wrote, and the places of its own after ``first`` turns."""
    pieces = list(FAMILIES[family].pieces(messages, [TOOL]))
    mask = [written and number > 3 * first for number, (text, written) in enumerate(pieces) for _ in text]
    text = "".join(text for text, _ in pieces)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    places = [place for place, (start, _) in enumerate(encoded["offset_mapping"]) if mask[start]]
    return encoded["input_ids"][: places[-1] + 1], places


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("number", [1, 3, 7])
def test_the_assistants_tokens_are_scored_and_no_others(
    family: str, number: int, make_tokenizer: MakeTokenizer
) -> None:
    tokenizer = FAMILIES[family].tokenizer(make_tokenizer)
    encoded = ChatEncoding(tokenizer, NEWLINE).encode(trajectory(TURNS[:number])).encoded
    token_ids, places = by_characters(family, [*ASKED, *TURNS[:number]], 1, tokenizer)
    assert list(encoded.token_ids) == token_ids
    assert list(encoded.scored_places) == places
    assert encoded.scored_ids == tuple(token_ids[place] for place in places)
    assert encoded.num_scored == len(places)


@pytest.mark.parametrize("family", FAMILIES)
def test_assistants_turns_of_the_prompt_are_not_scored(family: str, make_tokenizer: MakeTokenizer) -> None:
    tokenizer = FAMILIES[family].tokenizer(make_tokenizer)
    prompt = [*ASKED, *TURNS[:2]]
    rollout = trajectory(TURNS[2:], prompt=prompt)
    encoded = ChatEncoding(tokenizer, NEWLINE).encode(rollout).encoded
    token_ids, places = by_characters(family, [*ASKED, *TURNS], 3, tokenizer)
    assert list(encoded.token_ids) == token_ids
    assert list(encoded.scored_places) == places


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_one_turn_is_scored_as_its_text_is(
    family: str, finish_reason: Any, make_tokenizer: MakeTokenizer
) -> None:
    encoding = ChatEncoding(FAMILIES[family].tokenizer(make_tokenizer), NEWLINE)
    text = "Step 1: add.\nThe answer is 7"
    one = trajectory([{"role": "assistant", "content": text}], finish_reason=finish_reason)
    plain = replace(one, response=text, turns=None)
    assert encoding.encode(one).encoded == encoding.encode(plain).encoded
    assert encoding.encode(one).steps == encoding.encode(plain).steps
    assert encoding.encode(one).token_ends == encoding.encode(plain).token_ends


@pytest.mark.parametrize("family", FAMILIES)
def test_a_turn_ends_a_step_and_the_rule_cuts_finer(family: str, make_tokenizer: MakeTokenizer) -> None:
    tokenizer = FAMILIES[family].tokenizer(make_tokenizer)
    by_turn = ChatEncoding(tokenizer, StepRule("turn")).encode(trajectory(TURNS))
    by_line = ChatEncoding(tokenizer, NEWLINE).encode(trajectory(TURNS))
    call = '<tool_call>add {"a": 3, "b": 4}</tool_call>'
    assert [step.text.rstrip("\n") for step in by_turn.steps] == [
        call,
        f"First add.\nThen check.\n{call}\n{call}",
        "Step 1: so\nthe answer is 7",
    ]
    assert [len(step.text.rstrip("\n").split("\n")) for step in by_line.steps] == [1] * 7
    assert by_turn.scored_text == by_line.scored_text == "".join(step.text for step in by_line.steps)
    ends = by_line.encoded.step_ends
    assert by_turn.encoded.step_ends == (ends[0], ends[4], ends[6])
    # A step model reads a turn at its end-of-turn, not in what a tool answers.
    last = [by_turn.encoded.token_ids[place] for place in read_positions(by_turn.encoded)]
    assert tokenizer.convert_ids_to_tokens(last) == [FAMILIES[family].end] * 3


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma"])
def test_a_turn_that_was_cut_off_has_no_end(family: str, make_tokenizer: MakeTokenizer) -> None:
    encoding = ChatEncoding(FAMILIES[family].tokenizer(make_tokenizer), NEWLINE)
    whole = encoding.encode(trajectory(TURNS)).encoded
    cut = encoding.encode(trajectory(TURNS, finish_reason="length")).encoded
    assert whole.token_ids == (*cut.token_ids, encoding.end_of_turn_id)
    assert whole.num_scored == cut.num_scored + 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_turn_that_was_cut_off_before_its_first_token_leaves_no_tool_to_be_scored(
    family: str, make_tokenizer: MakeTokenizer
) -> None:
    encoding = ChatEncoding(FAMILIES[family].tokenizer(make_tokenizer), NEWLINE)
    silent: Message = {"role": "assistant", "content": ""}
    cut = encoding.encode(trajectory([*TURNS[:2], silent], finish_reason="length"))
    whole = encoding.encode(trajectory(TURNS[:1]))
    assert cut.encoded.scored_ids == whole.encoded.scored_ids
    assert cut.encoded.step_ends[-1] == cut.encoded.num_scored == len(cut.token_ends)


def test_what_follows_the_assistants_last_turn_is_left_out(make_tokenizer: MakeTokenizer) -> None:
    encoding = ChatEncoding(FAMILIES["llama"].tokenizer(make_tokenizer), NEWLINE)
    assert encoding.encode(trajectory(TURNS[:6])) == encoding.encode(trajectory(TURNS[:3]))


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma"])
def test_tools_are_a_part_of_the_prompt(family: str, make_tokenizer: MakeTokenizer) -> None:
    tokenizer = FAMILIES[family].tokenizer(make_tokenizer)
    encoding = ChatEncoding(tokenizer, NEWLINE)
    rollout = Rollout(id="r", prompt_id="p", prompt=ASKED, response="7", extras={"tools": [TOOL]})
    text = tokenizer.decode(list(encoding.encode(rollout).encoded.token_ids))
    assert "# add\n" in text
    as_json = replace(rollout, extras={"tools": '[{"type": "function", "function": {"name": "add"}}]'})
    assert encoding.encode(as_json) == encoding.encode(rollout)
    assert "# add" not in tokenizer.decode(
        list(encoding.encode(replace(rollout, extras={})).encoded.token_ids)
    )


def test_a_template_that_rewrites_earlier_turns_is_refused(make_tokenizer: MakeTokenizer) -> None:
    encoding = ChatEncoding(FAMILIES["qwen"].tokenizer(make_tokenizer), NEWLINE)
    thinking: Message = {"role": "assistant", "content": "<think>\nadd\n</think>\n\n7"}
    turns: list[Message] = [
        thinking,
        {"role": "user", "content": "So?"},
        {"role": "assistant", "content": "7"},
    ]
    with pytest.raises(EncodingError, match=r"r: the chat template (rewrites earlier|leaves out)") as caught:
        encoding.encode(trajectory(turns))
    assert caught.value.kind == "not-encodable"
    tool: list[Message] = [thinking, {"role": "tool", "content": "7"}, thinking]
    assert (
        encoding.encode(trajectory(tool)).scored_text
        == "<think>\nadd\n</think>\n\n7\n\n<think>\nadd\n</think>\n\n7"
    )


def test_a_template_without_tools_does_not_lose_calls_in_silence(
    make_tokenizer: MakeTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*ASKED, *TURNS[:2]]
    for rollout in (trajectory(TURNS), Rollout(id="r", prompt_id="p", prompt=asked, response="7")):
        encoding = ChatEncoding(make_tokenizer("chatml"), NEWLINE)
        assert encoding.encode(rollout) == encoding.encode(rollout)
        (warning,) = capsys.readouterr().err.splitlines()
        assert "leaves out calls of tools, first that of 'add': they are neither seen nor scored" in warning


def test_thinking_in_a_field_of_its_own_is_scored(make_tokenizer: MakeTokenizer) -> None:
    encoding = ChatEncoding(FAMILIES["llama"].tokenizer(make_tokenizer), StepRule("turn"))
    turn: Message = {"role": "assistant", "content": "7", "reasoning_content": "3 + 4"}
    assert encoding.encode(trajectory([turn])).scored_text == "<think>\n3 + 4\n</think>\n\n7"


def test_a_template_that_opens_the_thinking(make_tokenizer: MakeTokenizer) -> None:
    tokenizer: Any = make_tokenizer("chatml")
    tokenizer.chat_template = QWEN_OPENED
    turns: list[Message] = [
        {"role": "assistant", "content": "<think>\nadd\n</think>\n\n", "tool_calls": [CALL]},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "<think>\nfine\n</think>\n\n7"},
    ]
    text = ChatEncoding(tokenizer, StepRule("turn")).encode(trajectory(turns)).scored_text
    call = '<tool_call>add {"a": 3, "b": 4}</tool_call>'
    assert text == f"add\n</think>\n\n\n{call}\n\nfine\n</think>\n\n7"


def test_a_first_token_that_merges_with_the_header(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = FAMILIES["qwen"].tokenizer(make_tokenizer)
    turns: list[Message] = [{"role": "assistant", "content": "\n\n7"}]
    with pytest.raises(EncodingError, match=r"merges with the prompt's last token\. Pass --boundary apart"):
        ChatEncoding(tokenizer, NEWLINE).encode(trajectory(turns))
    set_chat_settings(tokenizer, ChatSettings(boundary="apart"))
    apart = ChatEncoding(tokenizer, NEWLINE)
    encoded = apart.encode(trajectory(turns)).encoded
    assert encoded.scored_ids == (*tokenizer("\n\n7")["input_ids"], apart.end_of_turn_id)
    assert (
        encoded
        == apart.encode(
            Rollout(id="r", prompt_id="p", prompt=ASKED, response="\n\n7", extras={"tools": [TOOL]})
        ).encoded
    )


def test_what_turns_cannot_do_is_refused(make_tokenizer: MakeTokenizer) -> None:
    encoding = ChatEncoding(FAMILIES["qwen"].tokenizer(make_tokenizer), NEWLINE)
    started: list[Message] = [*ASKED, {"role": "assistant", "content": "So"}]
    with pytest.raises(EncodingError, match="which a list of turns cannot continue"):
        encoding.encode(trajectory(TURNS, prompt=started))
    with pytest.raises(EncodingError, match="spells a control token"):
        encoding.encode(trajectory([{"role": "assistant", "content": "a<|im_end|>b"}]))


def test_a_base_model_without_a_template_takes_no_turns(make_tokenizer: MakeTokenizer) -> None:
    tokenizer: Any = make_tokenizer("chatml")
    tokenizer.chat_template = None
    with pytest.raises(CheckpointError, match="has no chat template"):
        ChatEncoding(tokenizer, NEWLINE)
