from __future__ import annotations

import math

import pytest

from stepcredit.errors import DataError, UserError
from stepcredit.scorers.baselines import BASELINES, make_baseline, random_reward
from stepcredit.types import Rollout


def _rollout(name: str, response: str, prediction: str | None, correct: bool | None = None) -> Rollout:
    return Rollout(
        id=name, prompt_id="p", prompt="?", response=response, prediction=prediction, correct=correct
    )


ROLLOUTS = [
    _rollout("a", "it is 4", "4", True),
    _rollout("b", "4", "4", True),
    _rollout("c", "surely 5", "5", False),
    _rollout("d", "no idea", None, False),
]


def _rewards(name: str, rollouts: list[Rollout] = ROLLOUTS) -> list[float]:
    return [score.reward for score in make_baseline(name, lambda: rollouts).score_all(rollouts)]


def test_rewards_of_each_baseline() -> None:
    assert _rewards("longest") == [7, 1, 8, 7]
    assert _rewards("shortest") == [-7, -1, -8, -7]
    assert _rewards("self-consistency") == [0.5, 0.5, 0.25, 0.0]
    assert _rewards("oracle") == [1, 1, 0, 0]


def test_answers_are_counted_without_blanks_and_blanks_are_none() -> None:
    rollouts = [_rollout(str(n), "r", prediction) for n, prediction in enumerate(("4", " 4 ", "", "  "))]
    assert _rewards("self-consistency", rollouts) == [0.5, 0.5, 0.0, 0.0]


def test_random_rewards_depend_on_seed_and_row_only() -> None:
    assert _rewards("random") == _rewards("random", ROLLOUTS[::-1])[::-1]
    assert len(set(_rewards("random"))) == 4
    assert random_reward(ROLLOUTS[0], 0) != random_reward(ROLLOUTS[0], 1)
    many = [random_reward(ROLLOUTS[0], seed) for seed in range(400)]
    # The mean of 400 uniform numbers has standard deviation 1 / sqrt(12 * 400).
    assert sum(many) / 400 == pytest.approx(0.5, abs=4 / math.sqrt(4800))


@pytest.mark.parametrize("name", BASELINES)
def test_a_score_is_one_step_that_covers_the_response(name: str) -> None:
    for rollout, score in zip(
        ROLLOUTS, make_baseline(name, lambda: ROLLOUTS).score_all(ROLLOUTS), strict=True
    ):
        (step,) = score.steps
        assert (step.start, step.end, step.text) == (0, len(rollout.response), rollout.response)
        assert step.reward == step.value == score.reward == score.aggregates["min"]
        assert score.num_tokens == len(rollout.response.split())


@pytest.mark.parametrize(("name", "prediction"), [("oracle", "4"), ("self-consistency", None)])
def test_what_needs_graded_responses_says_so(name: str, prediction: str | None) -> None:
    with pytest.raises(DataError, match="stepcredit grade"):
        _rewards(name, [_rollout("a", "4", prediction)])


def test_an_unknown_baseline_names_the_known() -> None:
    with pytest.raises(UserError, match="self-consistency"):
        make_baseline("luck", lambda: ROLLOUTS)
