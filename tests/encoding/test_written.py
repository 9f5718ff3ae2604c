"""The opening of the thinking counts once, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.chat_families import FAMILIES, GEMMA, LLAMA, QWEN_OPENED
from transformers import PreTrainedTokenizerBase

from stepcredit.chat_templates import ChatOptions, set_chat_settings
from stepcredit.encoding import ChatEncoding, EncodedSteps
from stepcredit.generators.prompts import PromptFormat
from stepcredit.steps import StepRule
from stepcredit.types import Message, Rollout

MakeTokenizer = Callable[..., PreTrainedTokenizerBase]
REST = "Okay\n\nso\n</think>\n\nThe answer is 7"
OPENED = {
    "chatml": QWEN_OPENED,
    "llama3": LLAMA.replace("assistant<|end_header_id|>\n\n", "assistant<|end_header_id|>\n\n<think>\n"),
    "gemma": GEMMA.replace("<start_of_turn>model\n", "<start_of_turn>model\n<think>\n"),
}


def encoded(tokenizer: Any, response: str, ids: Sequence[int] | None = None, **fields: Any) -> EncodedSteps:
    if ids is not None:
        fields |= {"response_token_ids": tuple(ids), "tokenizer": "own"}
    rollout = Rollout(id="r", prompt_id="p", prompt="What is 3 + 4?", response=response, **fields)
    return ChatEncoding(tokenizer, StepRule("newline"), tokenizer_hash="own").encode(rollout)


@pytest.mark.parametrize("control", OPENED)
@pytest.mark.parametrize("opening", ["<think>\n", "\n<think>\n"])
def test_a_tag_that_the_prompt_ends_with_is_not_counted_again(
    control: str, opening: str, make_tokenizer: MakeTokenizer
) -> None:
    tokenizer: Any = make_tokenizer(control)
    tokenizer.chat_template = OPENED[control]
    once, twice = encoded(tokenizer, REST), encoded(tokenizer, opening + REST)
    assert twice.encoded == once.encoded
    assert "".join(step.text for step in twice.steps) == opening + REST
    assert [step.text for step in twice.steps[1:]] == [step.text for step in once.steps[1:]]
    assert twice.steps[0].text == opening + once.steps[0].text
    shift = len(opening)
    assert twice.token_ends == tuple(end + shift for end in once.token_ends)
    text = tokenizer.decode(list(twice.encoded.token_ids))
    assert text.count("<think>") == 1


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma"])
def test_a_tag_that_was_lost_is_put_back_where_the_prompt_has_none(
    family: str, make_tokenizer: MakeTokenizer
) -> None:
    tokenizer = FAMILIES[family].tokenizer(make_tokenizer)
    with_tag, without = encoded(tokenizer, "<think>\n" + REST), encoded(tokenizer, REST)
    assert without.encoded == with_tag.encoded
    assert "".join(step.text for step in without.steps) == REST
    assert without.token_ends == tuple(max(end - len("<think>\n"), 0) for end in with_tag.token_ends)


def test_an_empty_block_that_the_prompt_ends_with(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = FAMILIES["qwen"].tokenizer(make_tokenizer)
    set_chat_settings(tokenizer, ChatOptions(template_arg=("enable_thinking=false",)).settings())
    assert (
        encoded(tokenizer, "<think>\n\n</think>\n\nThe answer is 7").encoded
        == encoded(tokenizer, "The answer is 7").encoded
    )


def test_tokens_as_they_were_drawn_win(make_tokenizer: MakeTokenizer) -> None:
    tokenizer: Any = make_tokenizer("chatml")
    tokenizer.chat_template = QWEN_OPENED
    response = "<think>\n" + REST
    ids = tuple(tokenizer(response)["input_ids"])
    drawn = encoded(tokenizer, response, ids)
    assert drawn.encoded.scored_ids[:-1] == ids


def test_labelled_steps_keep_their_places(make_tokenizer: MakeTokenizer) -> None:
    tokenizer: Any = make_tokenizer("chatml")
    tokenizer.chat_template = QWEN_OPENED
    steps = ["<think>", "Okay", "The answer is 7"]
    listed = encoded(tokenizer, "<think>\n" + REST, extras={"steps": steps})
    assert [step.text for step in listed.steps] == [
        "<think>\n",
        "Okay\n\nso\n</think>\n\n",
        "The answer is 7",
    ]
    assert listed.encoded.step_ends[0] == 0


def test_ordinary_responses_are_as_they_are(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = FAMILIES["qwen"].tokenizer(make_tokenizer)
    response = "Think <think> about it.\nThe answer is 7"
    ids = encoded(tokenizer, response).encoded.scored_ids
    assert tokenizer.decode(list(ids[:-1])) == response


@pytest.mark.parametrize("control", OPENED)
def test_a_response_that_begins_with_a_line_end_is_tokenised_apart_on_request(
    control: str, make_tokenizer: MakeTokenizer
) -> None:
    tokenizer: Any = make_tokenizer(control)
    set_chat_settings(tokenizer, ChatOptions(boundary="apart").settings())
    result = encoded(tokenizer, "\n\nLet me think\nThe answer is 7")
    alone = tokenizer("\n\nLet me think\nThe answer is 7", add_special_tokens=False)["input_ids"]
    assert list(result.encoded.scored_ids[:-1]) == alone
    assert len(result.steps) == 2
    drawn = [tokenizer.convert_tokens_to_ids("Ċ")] * 2 + alone[1:]
    recorded = encoded(tokenizer, "\n\nLet me think\nThe answer is 7", drawn)
    assert list(recorded.encoded.scored_ids[:-1]) == drawn


def test_steps_that_a_row_lists_are_not_put_together(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = FAMILIES["gemma"].tokenizer(make_tokenizer)
    rollout = Rollout(id="r", prompt_id="p", prompt="?", response="a b", extras={"steps": ["a", "b"]})
    result = ChatEncoding(tokenizer, StepRule.parse("thinking:99")).encode(rollout)
    assert [step.text for step in result.steps] == ["a ", "b"]
    assert len(result.encoded.step_ends) == 2


def test_a_response_that_goes_on_with_the_thinking_of_its_prompt_has_lost_no_tag(
    make_tokenizer: MakeTokenizer,
) -> None:
    tokenizer = FAMILIES["qwen"].tokenizer(make_tokenizer)
    prompt: list[Message] = [
        {"role": "user", "content": "What is 3 + 4?"},
        {"role": "assistant", "content": "<think>\nOkay\n\n"},
    ]
    rest = "so\n</think>\n\nThe answer is 7"
    rollout = Rollout(id="r", prompt_id="p", prompt=prompt, response=rest)
    result = ChatEncoding(tokenizer, StepRule("newline")).encode(rollout)
    whole = encoded(tokenizer, "<think>\n" + REST).encoded.token_ids
    assert tokenizer.decode(list(result.encoded.token_ids)) == tokenizer.decode(list(whole))
    assert tokenizer.decode(list(result.encoded.scored_ids[:-1])) == rest
    opening = PromptFormat(tokenizer).opening(prompt, "so\n</think>\n")
    assert tokenizer.decode(list(opening.token_ids)).endswith("<think>\nOkay\n\nso\n</think>\n")
