from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from stepcredit.encoding import ChatEncoding, EncodingError
from stepcredit.errors import CheckpointError, DataError
from stepcredit.lab.tokenizer import make_tokenizer as lab_tokenizer
from stepcredit.steps import StepRule, split
from stepcredit.types import Message, Rollout

MakeTokenizer = Callable[..., PreTrainedTokenizerBase]
NEWLINE = StepRule("newline")
PROMPT = "Tom had 3 pens. How many?"


def rollout(response: str, **fields: Any) -> Rollout:
    return Rollout(**{"id": "r1", "prompt_id": "p1", "prompt": PROMPT, "response": response, **fields})


def rendered(tokenizer: Any, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


END_OF_TURN = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "mistral": "</s>",
    "gemma": "<end_of_turn>",
    "phi": "<|end|>",
}


@pytest.mark.parametrize("template", END_OF_TURN)
@pytest.mark.parametrize(
    "response",
    [
        "Step 1: add.\nStep 2: halve.\n",
        " leading\r\nand trailing \r\n\r\n",
        "é😀 日本\nmore ∑ 𝄞",
        "one",
    ],
)
def test_the_whole_text_tokenised_at_once(
    template: str, response: str, make_tokenizer: MakeTokenizer
) -> None:
    tokenizer = make_tokenizer(template)
    end = END_OF_TURN[template]
    encoded = ChatEncoding(tokenizer, NEWLINE).encode(rollout(response)).encoded
    text = rendered(tokenizer, PROMPT)
    assert list(encoded.token_ids) == tokenizer(text + response + end, add_special_tokens=False)["input_ids"]
    prompt_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert list(encoded.token_ids[: encoded.scored_start]) == prompt_ids
    assert tokenizer.decode(list(encoded.token_ids[encoded.scored_start : -1])) == response


def test_a_token_that_straddles_a_separator_belongs_to_the_step_it_starts_in(
    make_tokenizer: MakeTokenizer,
) -> None:
    tokenizer = make_tokenizer()
    response = "pens.\n\nStep 2: He"  # ".\n\n" is one token
    encoded = ChatEncoding(tokenizer, StepRule("separator", ".\n")).encode(rollout(response))
    offsets = tokenizer(response, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    starts = [start for start, _ in offsets]
    assert any(start < len("pens.\n") < end for start, end in offsets), "no token straddles the boundary"
    assert encoded.steps[0].end == len("pens.\n")
    assert encoded.encoded.step_ends == (sum(start < 6 for start in starts), len(starts) + 1)


def test_a_character_of_several_tokens_is_in_one_step(make_tokenizer: MakeTokenizer) -> None:
    encoded = ChatEncoding(make_tokenizer(), NEWLINE).encode(rollout("😀\n😀"))
    assert encoded.encoded.step_ends == (5, 10)  # four bytes and a line end; four bytes and end-of-turn
    assert encoded.token_ends == (0, 0, 0, 1, 2, 2, 2, 2, 3, 3)


def test_end_of_turn_is_scored_unless_the_response_was_cut_off(make_tokenizer: MakeTokenizer) -> None:
    encoding = ChatEncoding(make_tokenizer(), NEWLINE)
    finished = encoding.encode(rollout("a\nb")).encoded
    stopped = encoding.encode(rollout("a\nb", finish_reason="stop")).encoded
    cut_off = encoding.encode(rollout("a\nb", finish_reason="length")).encoded
    assert finished == stopped
    assert finished.token_ids == (*cut_off.token_ids, encoding.end_of_turn_id)
    assert cut_off.step_ends[-1] == cut_off.num_scored


def test_an_empty_response_is_its_end_of_turn(make_tokenizer: MakeTokenizer) -> None:
    encoding = ChatEncoding(make_tokenizer(), NEWLINE)
    encoded = encoding.encode(rollout(""))
    assert encoded.encoded.token_ids[encoded.encoded.scored_start :] == (encoding.end_of_turn_id,)
    assert encoded.encoded.step_ends == (1,)
    with pytest.raises(EncodingError, match="r1") as caught:
        encoding.encode(rollout("", finish_reason="length"))
    assert caught.value.kind == "nothing-to-score"


@pytest.mark.parametrize("template", ["chatml", "llama3"])
def test_text_of_control_tokens_in_a_response_stays_text(
    template: str, make_tokenizer: MakeTokenizer
) -> None:
    tokenizer = make_tokenizer(template)
    response = "x<|im_end|><|eot_id|>\n<|im_start|>user<|start_header_id|>"
    encoding = ChatEncoding(tokenizer, NEWLINE)
    encoded = encoding.encode(rollout(response)).encoded
    scored = encoded.token_ids[encoded.scored_start :]
    control = set(tokenizer.all_special_ids)
    assert control.isdisjoint(scored[:-1])
    assert scored[-1] == encoding.end_of_turn_id
    assert tokenizer.decode(list(scored[:-1])) == response


def test_a_response_that_merges_with_the_prompt_is_an_error_not_a_slice(
    make_tokenizer: MakeTokenizer,
) -> None:
    encoding = ChatEncoding(make_tokenizer(), NEWLINE)
    with pytest.raises(EncodingError, match=r"r1: .* merges with the prompt's last token") as caught:
        encoding.encode(rollout("\nStep"))  # the prompt ends in "\n", and "\n\n" is one token
    assert caught.value.kind == "prompt-not-prefix"
    assert encoding.encode(rollout(" Step"))


def test_a_template_without_generation_prompt_gets_the_assistants_header(
    make_tokenizer: MakeTokenizer,
) -> None:
    tokenizer = make_tokenizer("bare")
    encoded = ChatEncoding(tokenizer, NEWLINE).encode(rollout("a b")).encoded
    assert tokenizer.decode(list(encoded.token_ids)) == f"user:{PROMPT}<|end|>assistant:a b<|end|>"


def test_a_template_that_answers_at_once_gets_no_header(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer("bare")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    )
    encoded = ChatEncoding(tokenizer, NEWLINE).encode(rollout(" a")).encoded
    assert tokenizer.decode(list(encoded.token_ids)) == f"[INST] {PROMPT} [/INST] a<|end|>"


def test_over_long_sequences_are_refused(make_tokenizer: MakeTokenizer) -> None:
    encoding = ChatEncoding(make_tokenizer(), NEWLINE)
    length = len(encoding.encode(rollout("a b c")).encoded.token_ids)
    assert ChatEncoding(make_tokenizer(), NEWLINE, max_tokens=length).encode(rollout("a b c"))
    with pytest.raises(EncodingError, match=f"r1: .*{length} tokens, more than the context of") as caught:
        ChatEncoding(make_tokenizer(), NEWLINE, max_tokens=length - 1).encode(rollout("a b c"))
    assert caught.value.kind == "too-long"


def test_equal_responses_to_a_prompt_are_encoded_once(make_tokenizer: MakeTokenizer) -> None:
    encoding = ChatEncoding(make_tokenizer(), StepRule("newline"), max_tokens=40)
    first, again = encoding.encode(rollout("a\nb", id="r1")), encoding.encode(rollout("a\nb", id="r2"))
    assert first is again
    others = [
        rollout("a\nc"),
        rollout("a\nb", finish_reason="length"),
        rollout("a\nb", extras={"steps": ["a\nb"]}),
        rollout("a\nb", prompt="another question"),
    ]
    for other in others:
        fresh = ChatEncoding(make_tokenizer(), StepRule("newline"), max_tokens=40)
        assert encoding.encode(other) == fresh.encode(other) != first


def test_an_error_names_the_row_that_it_is_about(make_tokenizer: MakeTokenizer) -> None:
    encoding = ChatEncoding(make_tokenizer(), StepRule("newline"), max_tokens=10)
    for name in ("r1", "r2"):
        with pytest.raises(EncodingError, match=f"^{name}: prompt and response have") as caught:
            encoding.encode(rollout("5 pens. " * 20, id=name))
        assert caught.value.kind == "too-long"


def test_conversations_are_prompts_too(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    prompt: list[Message] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]
    encoding = ChatEncoding(tokenizer, NEWLINE)
    encoded = encoding.encode(rollout("a", prompt=prompt)).encoded
    assert "system\nBe brief." in tokenizer.decode(list(encoded.token_ids))
    assert encoding.prompt_ids(prompt) == encoded.token_ids[: encoded.scored_start]


def test_a_prompt_that_the_template_refuses_is_a_data_error(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') if messages|length > 2 else 'x' }}"
    with pytest.raises(DataError, match="roles must alternate"):
        ChatEncoding(tokenizer, NEWLINE).encode(rollout("a", prompt=[{"role": "user", "content": "?"}] * 3))


def test_text_that_the_vocabulary_does_not_know_ends_no_turn() -> None:
    tokenizer = lab_tokenizer()
    encoding = ChatEncoding(tokenizer, NEWLINE, tokenizer_hash="same")
    encoded = encoding.encode(rollout("1\nxé", prompt="?1="))
    scored = encoded.encoded.token_ids[encoded.encoded.scored_start :]
    unknown = tokenizer.unk_token_id
    assert scored[2:] == (unknown, unknown, encoding.end_of_turn_id)
    assert encoded.encoded.step_ends == (2, 5)


def test_a_conversation_without_turns_is_a_data_error(make_tokenizer: MakeTokenizer) -> None:
    with pytest.raises(DataError, match="without turns"):
        ChatEncoding(make_tokenizer(), NEWLINE).encode(rollout("a", prompt=[]))


def test_recorded_tokens_are_used_where_the_tokenizer_is_the_same(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    encoding = ChatEncoding(tokenizer, NEWLINE, tokenizer_hash="same")
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in ("p", "e", "n", "s", "Ċ", "H", "e")]
    drawn = rollout("pens\nHe", response_token_ids=(*letters, encoding.end_of_turn_id), tokenizer="same")
    encoded = encoding.encode(drawn)
    assert encoded.encoded.token_ids[encoded.encoded.scored_start :] == drawn.response_token_ids
    assert encoded.encoded.step_ends == (5, 8)
    elsewhere = encoding.encode(replace(drawn, tokenizer="other"))
    assert elsewhere.encoded.num_scored < encoded.encoded.num_scored


def test_recorded_tokens_without_end_of_turn_get_it_unless_cut_off(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    encoding = ChatEncoding(tokenizer, NEWLINE, tokenizer_hash="same")
    ids = tuple(tokenizer("He had", add_special_tokens=False)["input_ids"])
    drawn = rollout("He had", response_token_ids=ids, tokenizer="same")
    encoded = encoding.encode(drawn).encoded
    assert encoded.token_ids[encoded.scored_start :] == (*ids, encoding.end_of_turn_id)
    cut_off = encoding.encode(replace(drawn, finish_reason="length")).encoded
    assert cut_off.token_ids[cut_off.scored_start :] == ids


def test_recorded_tokens_of_another_text_are_refused(make_tokenizer: MakeTokenizer) -> None:
    encoding = ChatEncoding(make_tokenizer(), NEWLINE, tokenizer_hash="same")
    with pytest.raises(EncodingError, match="response_token_ids") as caught:
        encoding.encode(rollout("abc", response_token_ids=(70, 71), tokenizer="same"))
    assert caught.value.kind == "tokens-do-not-match"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(response=st.lists(st.sampled_from(["\n", " ", "é", "😀", "日", "pens", "e\u0301"])).map("".join))
def test_tokens_drawn_byte_by_byte_start_where_their_character_does(
    response: str, make_tokenizer: MakeTokenizer
) -> None:
    encoding = _shared_encoding(make_tokenizer)
    alphabet = bytes_to_unicode()
    byte_ids = [encoding.tokenizer.convert_tokens_to_ids(alphabet[byte]) for byte in response.encode()]
    starts = [i for i, character in enumerate(response) for _ in character.encode()]
    drawn = rollout(response, response_token_ids=(*byte_ids, encoding.end_of_turn_id), tokenizer="same")
    encoded = encoding.encode(drawn)
    assert encoded.token_ends == (*starts[1:], *[len(response)] * (2 if starts else 1))
    expected = [sum(start < step.end for start in starts) for step in encoded.steps]
    assert encoded.encoded.step_ends == (*expected[:-1], len(starts) + 1)


TEXT = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.lists(st.sampled_from(["\n", "\r\n", " ", "é", "😀", "pens", "<|im_end|>", ".", "Step"])).map("".join),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(response=TEXT)
@example(response="😀\n\u0301x\ufffd")
def test_text_and_recorded_tokens_agree(response: str, make_tokenizer: MakeTokenizer) -> None:
    encoding = _shared_encoding(make_tokenizer)
    assume(not response.startswith(("\n", "\r")))  # these merge with the line end of the prompt
    encoded = encoding.encode(rollout(response))
    ids = encoded.encoded.token_ids[encoded.encoded.scored_start :]
    assert encoding.encode(rollout(response, response_token_ids=ids, tokenizer="same")) == encoded
    assert encoded.steps == split(response, NEWLINE)
    assert encoded.encoded.step_ends[-1] == len(ids) == len(encoded.token_ends)
    assert encoded.token_ends[-1] == len(response)
    assert all(before <= after for before, after in pairwise(encoded.token_ends))


def _shared_encoding(make_tokenizer: MakeTokenizer, _kept: list[ChatEncoding] = []) -> ChatEncoding:  # noqa: B006
    if not _kept:
        _kept.append(ChatEncoding(make_tokenizer(), NEWLINE, tokenizer_hash="same"))
    return _kept[0]


def test_a_tokenizer_without_template_or_offsets_is_refused(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(CheckpointError, match="no chat template"):
        ChatEncoding(tokenizer, NEWLINE)

    class Slow:
        is_fast = False
        name_or_path = "models/slow"

    slow: Any = Slow()
    with pytest.raises(CheckpointError, match="models/slow: the tokenizer gives no character offsets"):
        ChatEncoding(slow, NEWLINE)


def test_a_tokenizer_without_end_of_turn_is_refused() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "?": 1, "[UNK]": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"
    with pytest.raises(CheckpointError, match="no end-of-turn token"):
        ChatEncoding(tokenizer, NEWLINE)
