from __future__ import annotations

from typing import Any

import pytest
from tests.chat_families import FAMILIES, QWEN_OPENED, TOOL

from stepcredit.chat_templates import ChatSettings, set_chat_settings
from stepcredit.errors import CheckpointError, DataError
from stepcredit.generators.prompts import PromptFormat
from stepcredit.types import GenerationRequest, Message, Prompt, Sampling

CHAT: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 1 + 1?"},
]


def test_prompts_and_conversations_go_through_the_chat_template(make_tokenizer: Any) -> None:
    prompt_format = PromptFormat(make_tokenizer("chatml"))
    assert prompt_format.prompt_text("Hi") == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert prompt_format.prompt_text(CHAT).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


def test_a_template_without_a_generation_prompt_gets_the_assistants_header(make_tokenizer: Any) -> None:
    assert PromptFormat(make_tokenizer("bare")).prompt_text("Hi") == "user:Hi<|end|>assistant:"


@pytest.mark.parametrize(("template", "end"), [("chatml", "<|im_end|>"), ("llama3", "<|eot_id|>")])
def test_the_templates_end_of_turn_ends_a_response_beside_the_tokenizers(
    make_tokenizer: Any, template: str, end: str
) -> None:
    tokenizer = make_tokenizer(template)
    tokenizer.eos_token = "<|pad|>"
    ends = PromptFormat(tokenizer).end_of_turn_ids()
    assert ends == set(tokenizer.convert_tokens_to_ids(["<|pad|>", end]))


def test_a_prefix_is_tokenised_together_with_the_prompt(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer("chatml")
    prompt_format = PromptFormat(tokenizer)
    opening = prompt_format.opening("Hi", "The answer is 27. user")
    assert tokenizer.decode(opening.token_ids) == prompt_format.prompt_text("Hi") + "The answer is 27. user"
    assert opening.prefix_ids is not None
    assert tokenizer.decode(opening.prefix_ids) == "The answer is 27. user"


def test_a_prefix_that_merges_with_the_prompts_last_token_has_no_tokens_of_its_own(
    make_tokenizer: Any,
) -> None:
    opening = PromptFormat(make_tokenizer("chatml")).opening("Hi", "\n\nThe answer")
    assert opening.prefix_ids is None


def test_a_prefix_that_spells_a_control_token_stays_text(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer("chatml")
    opening = PromptFormat(tokenizer).opening("Hi", "It is <|im_end|> now")
    assert opening.prefix_ids is not None
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in opening.prefix_ids
    assert tokenizer.decode(opening.prefix_ids) == "It is <|im_end|> now"


def test_a_conversation_that_ends_with_the_assistant_is_continued(make_tokenizer: Any) -> None:
    text = PromptFormat(make_tokenizer()).prompt_text([*CHAT, {"role": "assistant", "content": "It is "}])
    assert text.endswith("<|im_start|>assistant\nIt is ")


def test_what_the_template_raises_is_told(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match="roles must alternate"):
        PromptFormat(tokenizer).opening("Hi")


def test_a_tokenizer_without_a_template_is_refused(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(CheckpointError, match="no chat template"):
        PromptFormat(tokenizer)


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma"])
def test_tools_of_a_prompt_are_what_the_policy_reads(make_tokenizer: Any, family: str) -> None:
    prompt_format = PromptFormat(FAMILIES[family].tokenizer(make_tokenizer))
    asked = Prompt(id="p", prompt=CHAT[1:], extras={"tools": [TOOL]})
    request = GenerationRequest(prompt=asked, indices=(0,), sampling=Sampling())
    text = prompt_format.tokenizer.decode(prompt_format.opening_of(request).token_ids)
    assert "# add\n" in text


def test_a_prefix_that_opens_the_thinking_again_is_not_read_twice(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer("chatml")
    tokenizer.chat_template = QWEN_OPENED
    prompt_format = PromptFormat(tokenizer)
    assert prompt_format.opening("Hi", "<think>\nSo") == prompt_format.opening("Hi", "So")


def test_a_prefix_is_tokenised_apart_where_responses_are(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer("chatml")
    set_chat_settings(tokenizer, ChatSettings(boundary="apart"))
    opening = PromptFormat(tokenizer).opening("Hi", "\n\nThe answer")
    assert opening.prefix_ids == tuple(tokenizer("\n\nThe answer")["input_ids"])
