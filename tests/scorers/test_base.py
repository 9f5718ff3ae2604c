"""What all scorers share, with models that are no models."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stepcredit.encoding import EncodedSteps, EncodingError
from stepcredit.errors import DataError, UserError
from stepcredit.rewards import aggregate
from stepcredit.scorers.base import Judgement, WindowedScorer
from stepcredit.steps import StepRule, steps_of
from stepcredit.types import Encoded, Rollout

ROW = Rollout(id="a", prompt_id="p", prompt="?", response="one\ntwo\nthree")


class Lines:
    """One token a step."""

    name = "lines"

    def encode(self, rollout: Rollout) -> EncodedSteps:
        steps = steps_of(rollout, StepRule("newline"))
        ends = tuple(range(1, len(steps) + 1))
        return EncodedSteps(encoded=Encoded((0,) * (len(steps) + 1), 1, ends), steps=steps)


class Fixed(WindowedScorer):
    """Gives every response the same step scores; its reward is the last."""

    name = "fixed"

    def __init__(self, scores: Sequence[float]) -> None:
        super().__init__(Lines())
        self.scores: NDArray[np.float64] = np.array(scores)

    def judge(self, encoded: Sequence[EncodedSteps]) -> list[Judgement]:
        judged = Judgement(
            reward=float(self.scores[-1]),
            rewards=self.scores,
            values=self.scores,
            aggregates=aggregate(self.scores),
        )
        return [judged] * len(encoded)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1.1e100])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_step_that_is_no_number_is_reported_whatever_the_reward_is(number: float, place: int) -> None:
    scores = [1.0, 2.0, 3.0]
    assert next(Fixed(scores).score_all([ROW])).reward == 3.0
    scores[place] = number
    with pytest.raises(DataError, match=re.escape(f"a: the model gives a reward of {number}")):
        list(Fixed(scores).score_all([ROW]))


def test_a_row_whose_steps_are_not_its_own_is_named_and_can_be_left_out() -> None:
    wrong = replace(ROW, id="b", extras={"steps": ["four"]})
    with pytest.raises(EncodingError, match="b: step 1 of the field 'steps' is not in the response"):
        list(Fixed([1.0, 2.0, 3.0]).score_all([ROW, wrong]))
    left_out: list[EncodingError] = []
    scores = list(Fixed([1.0, 2.0, 3.0]).score_all([ROW, wrong], on_skip=left_out.append))
    assert [score.id for score in scores] == ["a"]
    assert [error.kind for error in left_out] == ["not-encodable"]


def test_rollouts_rows_and_pairs_are_scored_alike() -> None:
    scorer = Fixed([1.0, 2.0, 3.0])
    messages = [{"role": "user", "content": "?"}]
    given: list[Any] = [
        ROW,
        {"id": "b", "prompt_id": "p", "prompt": "?", "response": ROW.response},
        {"prompt": "?", "response": ROW.response},
        ("?", ROW.response),
        [messages, ROW.response],
    ]
    scores = list(scorer.score_all(iter(given)))
    assert [score.id for score in scores][:2] == ["a", "b"]
    assert len({score.id for score in scores}) == len(given)
    assert scores[2].prompt_id == scores[3].prompt_id != scores[4].prompt_id
    assert all(score.steps == scores[0].steps for score in scores)


WRONG = [
    ("rollouts", None, "score_all: takes rollouts, dicts or .* pairs, not NoneType"),
    ("rollouts", ROW, "score_all: takes .* not Rollout"),
    ("rollouts", "text", "response 1: is neither a Rollout, a dict nor .* but a str"),
    ("rollouts", ("?", "7"), "response 1: is neither"),
    ("rollouts", {"prompt": "?", "response": "7"}, "response 1: is neither"),
    ("rollouts", [ROW, ("?", 7)], r"response 2: field 'response' must be a string.*not 7"),
    ("rollouts", [{"prompt": "?"}], "response 1: field 'response' is missing"),
    ("prompt", 5, "score: field 'prompt' must be a string or a list"),
    ("prompt", [], "score: field 'prompt' must be a string or a list"),
    ("response", ["a"], r"score: field 'response\[0\]' must be an object with role and content"),
    ("response", 5, "score: field 'response' must be a string"),
]


@pytest.mark.parametrize(("argument", "value", "message"), WRONG)
def test_wrong_arguments_are_user_errors(argument: str, value: Any, message: str) -> None:
    scorer = Fixed([1.0])
    with pytest.raises(UserError, match=message):
        if argument == "rollouts":
            list(scorer.score_all(value))
        else:
            scorer.score(**{"prompt": "?", "response": "7", argument: value})


def test_empty_responses_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    scorer = Fixed([1.0])
    rows = [replace(ROW, response=text) for text in ("", "a", " \n")]
    assert [score.is_empty for score in scorer.score_all(rows)] == [True, False, True]
    assert "warning: 2 responses are empty: only the end-of-turn token is scored" in capsys.readouterr().err
    scorer.score("?", "")
    assert capsys.readouterr().err == ""
    Fixed([1.0]).score("?", "")
    assert "warning: 1 response is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompt", "response"), [("\ud800", "a"), ("a", "\ud800"), ([{"role": "user", "content": "\udfff"}], "a")]
)
def test_half_a_surrogate_pair_is_a_user_error(prompt: Any, response: str) -> None:
    row: dict[str, Any] = {"id": "a", "prompt_id": "p", "prompt": prompt, "response": response}
    for given in ((prompt, response), row, Rollout(**row)):
        with pytest.raises(DataError, match="half of a surrogate pair"):
            list(Fixed([1.0]).score_all([given]))
