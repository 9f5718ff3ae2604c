from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepcredit.data import score_to_json, write_rows
from stepcredit.errors import DataError
from stepcredit.types import ResponseScore, StepScore
from stepcredit_study.analyses.tokens import TokenRewards, read_token_rewards


def score(identifier: str, texts: list[str], rewards: list[float], ends: list[int] | None) -> ResponseScore:
    """A response whose steps are ``texts``, with any token rewards."""
    steps, start = [], 0
    for index, text in enumerate(texts):
        steps.append(StepScore(index, text, start, start + len(text), 0.0, 0.0))
        start += len(text)
    return ResponseScore(
        id=identifier,
        prompt_id="p",
        reward=sum(rewards),
        steps=tuple(steps),
        aggregates={},
        num_tokens=len(rewards),
        scorer="test",
        token_rewards=None if ends is None else tuple(rewards),
        token_ends=None if ends is None else tuple(ends),
    )


@pytest.fixture
def tokens(tmp_path: Path) -> TokenRewards:
    """Two responses: ``ab`` + ``c`` with end-of-turn, and ``de`` in one token."""
    first = score("x", ["ab", "c"], [1.0, -2.0, 3.0, -0.5], [1, 2, 3, 3])
    second = score("y", ["de"], [4.0, 1.0], [2, 2])
    write_rows(tmp_path / "scores.jsonl", map(score_to_json, (first, second)))
    return read_token_rewards(tmp_path / "scores.jsonl")


def test_a_token_belongs_to_the_step_that_it_starts_in_and_the_end_of_turn_to_the_last(
    tokens: TokenRewards,
) -> None:
    assert tokens.ids == ("x", "y")
    assert tokens.step_of_token.tolist() == [0, 0, 1, 1, 2, 2]
    assert tokens.step_sums(tokens.rewards).tolist() == [-1.0, 2.5, 5.0]


def test_a_token_that_reaches_into_the_next_step_counts_where_it_starts(tmp_path: Path) -> None:
    write_rows(tmp_path / "s.jsonl", [score_to_json(score("x", ["ab", "cd"], [1.0, 2.0], [3, 4]))])
    assert read_token_rewards(tmp_path / "s.jsonl").step_of_token.tolist() == [0, 1]


def test_a_response_is_its_lowest_its_mean_or_the_sum_of_its_steps(tokens: TokenRewards) -> None:
    steps = tokens.step_sums(tokens.rewards)
    assert tokens.aggregate(steps, "min").tolist() == [-1.0, 5.0]
    assert tokens.aggregate(steps, "sum").tolist() == [1.5, 5.0]
    assert tokens.aggregate(steps, "mean").tolist() == [0.75, 5.0]


def test_the_lowest_token_of_each_response(tokens: TokenRewards) -> None:
    assert tokens.lowest(tokens.rewards).tolist() == [-2.0, 1.0]
    assert tokens.lowest(np.arange(6.0)).tolist() == [0.0, 4.0]


def test_the_lowest_token_of_each_step(tokens: TokenRewards) -> None:
    assert tokens.lowest_of_steps(tokens.rewards).tolist() == [-2.0, -0.5, 1.0]


def test_scores_without_token_rewards_are_refused_with_what_to_do(tmp_path: Path) -> None:
    write_rows(tmp_path / "s.jsonl", [score_to_json(score("x", ["ab"], [1.0], None))])
    with pytest.raises(DataError, match="--tokens"):
        read_token_rewards(tmp_path / "s.jsonl")
