from __future__ import annotations

from typing import Any

import pytest

from stepcredit.generators.candidates import read_candidates
from stepcredit.servers import UnreadableAnswerError


def test_chat_and_completions_interfaces_are_read_alike() -> None:
    chat = {
        "content": [
            {"token": "Yes", "logprob": -0.1, "top_logprobs": [{"token": "No", "logprob": -2.5}]},
            {"token": ".", "logprob": 0.0},
        ]
    }
    completions = {
        "tokens": ["Yes", "."],
        "token_logprobs": [-0.1, 0.0],
        "top_logprobs": [{"No": -2.5}, None],
    }
    expected = (("Yes", {"No": -2.5, "Yes": -0.1}), (".", {".": 0.0}))
    assert read_candidates(chat) == read_candidates(completions) == expected


@pytest.mark.parametrize("nothing", [None, {}, {"content": []}, {"tokens": []}])
def test_a_server_may_give_none(nothing: Any) -> None:
    assert read_candidates(nothing) == ()


def test_a_candidate_of_no_probability_is_one() -> None:
    (token,) = read_candidates({"content": [{"token": "a", "logprob": -9999.0}]})
    assert token == ("a", {"a": -9999.0})


@pytest.mark.parametrize(
    ("log_probs", "message"),
    [
        ({"content": [{"token": "a", "logprob": 0.1}]}, "the token 'a' a log-probability of 0.1, which is"),
        ({"tokens": ["a"], "token_logprobs": [float("nan")], "top_logprobs": [{}]}, "log-probability of nan"),
        ({"content": [{"token": "a", "logprob": None}]}, "cannot be read"),
        ({"content": [{"logprob": -1.0}]}, "cannot be read"),
        ({"content": ["a"]}, "cannot be read"),
        ({"tokens": ["a"], "token_logprobs": [], "top_logprobs": []}, "cannot be read"),
        ([1], "cannot be read"),
    ],
)
def test_what_cannot_be_log_probabilities_is_refused(log_probs: Any, message: str) -> None:
    with pytest.raises(UnreadableAnswerError, match=message):
        read_candidates(log_probs)
