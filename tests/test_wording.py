from __future__ import annotations

import pytest

from stepcredit.wording import agree, every, quantity, suggestion


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "rollout", "0 rollouts"),
        (1, "rollout", "1 rollout"),
        (12_800, "row", "12,800 rows"),
        (2, "wrong step", "2 wrong steps"),
        (2, "prefix", "2 prefixes"),
        (3, "branch", "3 branches"),
        (2, "process", "2 processes"),
        (2, "query", "2 queries"),
        (2, "day", "2 days"),
        (1, "query", "1 query"),
    ],
)
def test_a_noun_follows_its_number(number: int, noun: str, text: str) -> None:
    assert quantity(number, noun) == text


def test_an_irregular_plural_is_given() -> None:
    assert quantity(2, "axis", "axes") == "2 axes"
    assert quantity(1, "axis", "axes") == "1 axis"


def test_all_of_one_thing_are_the_only_one() -> None:
    said = [every(number, "prefix") for number in (1, 2, 1_200)]
    assert said == ["the only prefix", "all 2 prefixes", "all 1,200 prefixes"]
    assert every(3, "axis", "axes") == "all 3 axes"


def test_verbs_and_pronouns_follow_their_number() -> None:
    assert [agree(number, "it differs", "they differ") for number in (1, 2)] == ["it differs", "they differ"]


def test_the_name_that_was_meant_is_suggested() -> None:
    assert suggestion("smal", ["large", "small"]) == "did you mean 'small'?"
    assert suggestion("qwerty", ["large", "small"]) == "use large, small"
    assert suggestion("qwerty", ["large", "small"], "see --help") == "see --help"
    assert suggestion("qwerty", ["large", "small"], "") is None
