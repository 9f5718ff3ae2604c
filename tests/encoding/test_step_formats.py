"""What the formats of step models look like, decoded, and where they are read."""

from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from stepcredit.encoding import (
    BestOfNEncoding,
    ConversationEncoding,
    EncodedSteps,
    EncodingError,
    MathShepherdEncoding,
    ProcessBenchEncoding,
    QwenPRMEncoding,
    RLHFlowEncoding,
    SkyworkPRMEncoding,
    StepwiseEncoding,
    read_positions,
)
from stepcredit.errors import CheckpointError
from stepcredit.steps import StepRule
from stepcredit.types import Encoded, Message, Rollout

MakeTokenizer = Callable[..., PreTrainedTokenizerBase]
NEWLINE = StepRule("newline")
RESPONSE = "1 + 2 = 3\n\n so - 3\n"


def rollout(response: str = RESPONSE, prompt: Any = "1 + 2?") -> Rollout:
    return Rollout(id="r1", prompt_id="p", prompt=prompt, response=response)


def read_tokens(tokenizer: Any, encoded: EncodedSteps) -> list[str]:
    """The text of each step's last token."""
    return [tokenizer.decode([encoded.encoded.token_ids[p]]) for p in read_positions(encoded.encoded)]


def text_of(tokenizer: Any, encoded: EncodedSteps) -> str:
    return str(tokenizer.decode(list(encoded.encoded.token_ids)))


def scored_text(tokenizer: Any, encoded: EncodedSteps) -> str:
    return str(tokenizer.decode(list(encoded.encoded.token_ids[encoded.encoded.scored_start :])))


def with_tag(tokenizer: Any) -> Any:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    return tokenizer


def test_a_step_is_read_at_its_last_token() -> None:
    assert read_positions(Encoded(tuple(range(10)), 4, (2, 2, 6))) == (5, 5, 9)


def test_math_shepherd_puts_a_tag_at_the_end_of_each_line(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    encoded = MathShepherdEncoding(tokenizer, NEWLINE).encode(rollout())
    assert text_of(tokenizer, encoded) == "1 + 2? 1 + 2 = 3 ки\nso - 3 ки"
    assert scored_text(tokenizer, encoded).strip() == "1 + 2 = 3 ки\nso - 3 ки"
    tag = tokenizer("ки", add_special_tokens=False)["input_ids"][-1]
    assert [encoded.encoded.token_ids[p] for p in read_positions(encoded.encoded)] == [tag, tag]
    assert "".join(step.text for step in encoded.steps) == RESPONSE


def test_a_tag_in_the_problem_is_no_step(make_tokenizer: MakeTokenizer) -> None:
    encoded = MathShepherdEncoding(make_tokenizer(), NEWLINE).encode(rollout("a\nb", "What is ки?"))
    assert len(encoded.encoded.step_ends) == 2


def test_qwen_puts_its_tag_after_each_step(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = with_tag(make_tokenizer())
    encoded = QwenPRMEncoding(tokenizer, NEWLINE).encode(rollout())
    assert scored_text(tokenizer, encoded) == "1 + 2 = 3<extra_0>so - 3<extra_0><|im_end|>\n"
    assert read_tokens(tokenizer, encoded) == ["<extra_0>", "<extra_0>"]
    assert text_of(tokenizer, encoded).startswith("<|im_start|>system\nPlease reason step by step")


def test_qwen_keeps_a_system_turn_of_the_prompt(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = with_tag(make_tokenizer())
    prompt: list[Message] = [{"role": "system", "content": "Hm."}, {"role": "user", "content": "<extra_0>?"}]
    encoded = QwenPRMEncoding(tokenizer, NEWLINE).encode(rollout("a\nb", prompt))
    assert "Please" not in text_of(tokenizer, encoded)
    assert len(encoded.encoded.step_ends) == 2
    assert prompt[0]["content"] == "Hm."


@pytest.mark.parametrize("tag", ["ки", "<extra_0>"])
def test_a_response_with_the_tag_is_refused(tag: str, make_tokenizer: MakeTokenizer) -> None:
    encodings: dict[str, Any] = {
        "ки": MathShepherdEncoding(make_tokenizer(), NEWLINE),
        "<extra_0>": QwenPRMEncoding(with_tag(make_tokenizer()), NEWLINE),
    }
    with pytest.raises(EncodingError, match="the response holds") as caught:
        encodings[tag].encode(rollout(f"a {tag}\nb"))
    assert caught.value.kind == "tag-in-response"


def test_a_vocabulary_without_the_tag_is_refused(make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(CheckpointError, match="<extra_0> is not one token"):
        QwenPRMEncoding(make_tokenizer(), NEWLINE)


def test_rlhflow_reads_before_each_answer(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    encoded = RLHFlowEncoding(tokenizer, NEWLINE).encode(rollout())
    turns = ["user\n1 + 2? 1 + 2 = 3", "assistant\n+", "user\nso - 3", "assistant\n+"]
    assert text_of(tokenizer, encoded) == "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns)
    positions = read_positions(encoded.encoded)
    assert [tokenizer.decode([encoded.encoded.token_ids[p + 1]]) for p in positions] == ["+", "+"]
    assert positions[-1] == len(encoded.encoded.token_ids) - 4  # \n | + <|im_end|> \n


def test_a_template_that_rewrites_earlier_turns_is_refused(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ messages|length }}" + str(tokenizer.chat_template)
    with pytest.raises(EncodingError, match="changes earlier turns"):
        RLHFlowEncoding(tokenizer, NEWLINE).encode(rollout())


def test_skywork_ends_each_step_with_a_line_end(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    encoded = SkyworkPRMEncoding(tokenizer, NEWLINE).encode(rollout())
    assert text_of(tokenizer, encoded) == "<|im_start|>1 + 2?\n1 + 2 = 3\nso - 3\n"
    assert scored_text(tokenizer, encoded) == "1 + 2 = 3\nso - 3\n"
    assert read_tokens(tokenizer, encoded) == ["\n", "\n"]


def test_stepwise_ends_each_step_with_the_separator(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    encoded = StepwiseEncoding(tokenizer, NEWLINE, separator=" ;").encode(rollout())
    assert text_of(tokenizer, encoded) == "1 + 2?1 + 2 = 3 ;so - 3 ;"
    assert [text[-1] for text in read_tokens(tokenizer, encoded)] == [";", ";"]


def test_a_conversation_is_one_step_read_at_its_end(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    encoded = ConversationEncoding(tokenizer, NEWLINE).encode(rollout())
    expected = f"<|im_start|>user\n1 + 2?<|im_end|>\n<|im_start|>assistant\n{RESPONSE}<|im_end|>\n"
    assert text_of(tokenizer, encoded) == expected
    assert [step.text for step in encoded.steps] == [RESPONSE]
    assert read_positions(encoded.encoded) == (len(encoded.encoded.token_ids) - 1,)


@pytest.mark.parametrize(
    "encoding_class",
    [MathShepherdEncoding, RLHFlowEncoding, SkyworkPRMEncoding, StepwiseEncoding, ConversationEncoding],
)
def test_over_long_responses_are_refused(encoding_class: Any, make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(EncodingError, match=r"r1: .*context of 12") as caught:
        encoding_class(make_tokenizer(), NEWLINE, max_tokens=12).encode(rollout("a b c d e f g h i j k"))
    assert caught.value.kind == "too-long"


@pytest.mark.parametrize(
    "encoding_class", [QwenPRMEncoding, ProcessBenchEncoding, BestOfNEncoding], ids=lambda c: c.name
)
def test_a_template_that_leaves_out_a_part_of_the_response_is_refused(
    encoding_class: Any, make_tokenizer: MakeTokenizer
) -> None:
    tokenizer = with_tag(make_tokenizer())
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "m['content']", "m['content'].split('</think>')[-1].lstrip()"
    )
    encoding = encoding_class(tokenizer, NEWLINE)
    assert encoding.encode(rollout("1 + 2 = 3\n3")).steps
    with pytest.raises(EncodingError, match="leaves out or changes a part of the response"):
        encoding.encode(rollout("<think>\n1 + 2\n</think>\n1 + 2 = 3\n3"))
