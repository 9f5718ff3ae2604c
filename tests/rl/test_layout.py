from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import MakeTokenizer

from stepcredit.encoding.token_starts import token_starts
from stepcredit.rl.layout import on_last_tokens, onto_tokens
from stepcredit.steps import steps_at

starts_of = st.lists(st.integers(0, 8), min_size=1, max_size=8).map(lambda places: [0, *sorted(places)])


@given(starts_of, starts_of, st.randoms())
def test_a_piece_goes_to_the_token_in_which_it_starts(
    scored: list[int], starts: list[int], random: object
) -> None:
    rewards = np.arange(1.0, len(scored) + 1)
    laid_out = onto_tokens(rewards, scored, starts)
    expected = [0.0] * len(starts)
    for reward, place in zip(rewards.tolist(), scored, strict=True):
        expected[max(index for index, start in enumerate(starts) if start <= place)] += reward
    assert laid_out.tolist() == expected
    assert laid_out.sum() == rewards.sum()


@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), starts_of)
def test_steps_keep_their_sum_whatever_the_tokens(lengths: list[int], starts: list[int]) -> None:
    ends = np.cumsum(lengths).tolist()
    steps = steps_at("x" * ends[-1], ends)
    rewards = [float(2**index) for index in range(len(steps))]
    assert on_last_tokens(steps, rewards, starts).sum() == sum(rewards)


def test_a_step_without_a_token_gives_its_reward_to_the_token_before() -> None:
    steps = steps_at("abcdef", [2, 3, 6])
    assert on_last_tokens(steps, [1.0, 10.0, 100.0], [0, 1, 4]).tolist() == [0.0, 11.0, 100.0]


def test_pieces_of_one_character_start_at_it(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    text = "a😀b"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    starts = token_starts(tokenizer, text, [*ids, tokenizer.eos_token_id])
    assert starts[0] == 0
    assert set(starts[1:-2]) == {1}
    assert starts[-2:] == (2, 3)
    assert len(starts) == len(ids) + 1


def test_tokens_need_not_be_those_of_the_tokenizer(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    letters = [int(tokenizer.convert_tokens_to_ids(letter)) for letter in "pens"]  # type: ignore[arg-type]
    assert token_starts(tokenizer, "pens", letters) == (0, 1, 2, 3)
    assert len(tokenizer("pens", add_special_tokens=False)["input_ids"]) < 4


@pytest.mark.parametrize("text", ["", "\n"])
def test_a_text_of_nothing_has_the_end_of_turn_at_its_end(make_tokenizer: MakeTokenizer, text: str) -> None:
    tokenizer = make_tokenizer()
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert token_starts(tokenizer, text, ids)[-1] == len(text)
