from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from stepcredit.lab.task import DOMAINS, Domain, draw_problems
from stepcredit.lab.tokenizer import CHARACTERS, make_tokenizer

TOKENIZER = make_tokenizer()


def test_special_tokens_are_distinct() -> None:
    assert TOKENIZER.pad_token_id != TOKENIZER.eos_token_id
    assert len({TOKENIZER.pad_token_id, TOKENIZER.unk_token_id, TOKENIZER.eos_token_id}) == 3
    assert len(TOKENIZER) == 5 + len(CHARACTERS)


@given(st.text(CHARACTERS))
def test_task_text_round_trips_with_one_token_a_character(text: str) -> None:
    encoded = TOKENIZER(text, return_offsets_mapping=True)
    assert TOKENIZER.decode(encoded["input_ids"]) == text
    assert encoded["offset_mapping"] == [(place, place + 1) for place in range(len(text))]


@given(st.text(max_size=20).filter(lambda text: "<|" not in text))
def test_any_other_text_keeps_its_offsets(text: str) -> None:
    encoded = TOKENIZER(text, return_offsets_mapping=True)
    assert encoded["offset_mapping"] == [(place, place + 1) for place in range(len(text))]
    unknown = [token == TOKENIZER.unk_token_id for token in encoded["input_ids"]]
    assert unknown == [character not in CHARACTERS for character in text]


def test_the_prompt_with_its_generation_prompt_starts_the_whole_conversation() -> None:
    turns = [{"role": "user", "content": "7*8+5="}, {"role": "assistant", "content": "7*8=6\n6+5=1\n#1"}]
    prompt = TOKENIZER.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False)
    whole = TOKENIZER.apply_chat_template(turns, tokenize=False)
    assert prompt == "<|user|>7*8+5=<|assistant|>"
    assert whole == "<|user|>7*8+5=<|assistant|>7*8=6\n6+5=1\n#1<|end|>"
    prompt_ids = TOKENIZER(prompt, add_special_tokens=False)["input_ids"]
    assert TOKENIZER(whole, add_special_tokens=False)["input_ids"][: len(prompt_ids)] == prompt_ids
    assert len(prompt_ids) == 1 + 6 + 1


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=list(DOMAINS))
def test_every_problem_and_solution_is_within_the_vocabulary(domain: Domain) -> None:
    for problem in draw_problems("train", seed=0, count=50, domain=domain):
        assert set(problem.text + problem.solution) <= set(CHARACTERS)


def test_a_saved_tokenizer_loads_as_any_other(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.is_fast
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
    assert loaded.chat_template == TOKENIZER.chat_template
    assert (loaded.pad_token, loaded.eos_token) == ("<|pad|>", "<|end|>")
    assert loaded.decode(loaded("7*8=6\n#6")["input_ids"]) == "7*8=6\n#6"
