"""What all scorers share, with models that are no models."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from stepcredit.encoding import EncodedSteps, EncodingError
from stepcredit.errors import DataError
from stepcredit.rewards import aggregate
from stepcredit.scorers import Judgement, WindowedScorer
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


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_step_that_is_no_number_is_reported_whatever_the_reward_is(number: float, place: int) -> None:
    scores = [1.0, 2.0, 3.0]
    assert next(Fixed(scores).score_all([ROW])).reward == 3.0
    scores[place] = number
    with pytest.raises(DataError, match=f"a: the model gives a reward of {number}"):
        list(Fixed(scores).score_all([ROW]))


def test_a_row_whose_steps_are_not_its_own_is_named_and_can_be_left_out() -> None:
    wrong = replace(ROW, id="b", extras={"steps": ["four"]})
    with pytest.raises(EncodingError, match="b: step 1 of the field 'steps' is not in the response"):
        list(Fixed([1.0, 2.0, 3.0]).score_all([ROW, wrong]))
    left_out: list[EncodingError] = []
    scores = list(Fixed([1.0, 2.0, 3.0]).score_all([ROW, wrong], on_skip=left_out.append))
    assert [score.id for score in scores] == ["a"]
    assert [error.kind for error in left_out] == ["not-encodable"]
