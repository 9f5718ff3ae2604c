from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from stepcredit.errors import DataError
from stepcredit.evaluation.labelled_steps import LabelledSteps, join_labels
from stepcredit.evaluation.score_columns import score_columns
from stepcredit.types import ResponseScore, Rollout, StepLabel, StepScore

TEXT = "one\ntwo\n\nthree"


def rollout(*labels: tuple[int, float], name: str = "r") -> Rollout:
    return Rollout(
        id=name,
        prompt_id="p",
        prompt="?",
        response=TEXT,
        step_labels=tuple(StepLabel(end, label) for end, label in labels),
    )


def score(
    ends: Sequence[int], rewards: Sequence[float], *, additive: bool = True, name: str = "r"
) -> ResponseScore:
    values = np.cumsum(rewards) if additive else rewards
    starts = [0, *ends[:-1]]
    steps = tuple(
        StepScore(i, TEXT[start:end], start, end, reward, float(value))
        for i, (start, end, reward, value) in enumerate(zip(starts, ends, rewards, values, strict=True))
    )
    return ResponseScore(
        id=name,
        prompt_id="p",
        reward=float(values[-1]),
        steps=steps,
        aggregates={},
        num_tokens=3,
        scorer="fake",
    )


def join(labels: Sequence[tuple[int, float]], scored: ResponseScore) -> LabelledSteps:
    return join_labels([rollout(*labels)], score_columns([scored]))


def test_white_space_at_the_ends_does_not_matter() -> None:
    steps = join([(3, 1.0), (7, 1.0), (14, 0.0)], score([4, 9, 14], [0.5, 0.25, -1.0]))
    np.testing.assert_allclose(steps.rewards, [0.5, 0.25, -1.0])
    np.testing.assert_allclose(steps.values, [0.5, 0.75, -0.25])
    assert steps.first_wrong.tolist() == [2]
    assert steps.position_of_step.tolist() == [0, 1, 2]


def test_rewards_of_finer_steps_add_up_where_values_do() -> None:
    steps = join([(9, 1.0), (14, 1.0)], score([4, 9, 14], [0.5, 0.25, -1.0]))
    np.testing.assert_allclose(steps.rewards, [0.75, -1.0])
    assert steps.first_wrong.tolist() == [-1]


def test_elsewhere_the_lowest_of_finer_steps_counts() -> None:
    steps = join([(9, 1.0), (14, 1.0)], score([4, 9, 14], [0.5, 0.25, 0.75], additive=False))
    np.testing.assert_allclose(steps.rewards, [0.25, 0.75])
    np.testing.assert_allclose(steps.values, [0.25, 0.75])


def test_labels_may_stop_before_the_response_does() -> None:
    steps = join([(4, 0.0)], score([4, 9, 14], [0.5, 0.25, -1.0]))
    np.testing.assert_allclose(steps.rewards, [0.5, 0.25, -1.0])
    assert steps.labelled.tolist() == [True, False, False]
    assert steps.wrong.tolist() == [True, False, False]


def test_a_label_inside_a_scored_step_is_counted_or_refused() -> None:
    good, bad = score([4, 14], [0.5, 1.0]), score([9, 14], [0.5, 1.0], name="s")
    rollouts = [rollout((4, 1.0), (14, 1.0)), rollout((4, 1.0), (14, 1.0), name="s")]
    steps = join_labels(rollouts, score_columns([good, bad]))
    assert steps.ids == ("r",)
    assert steps.excluded == {"responses whose scored steps do not end where the labelled ones do": 1}
    with pytest.raises(DataError, match="Score this file with the step rule"):
        join_labels(rollouts[1:], score_columns([bad]))


def test_soft_labels_are_wrong_below_a_half() -> None:
    steps = join([(4, 0.5), (9, 0.49), (14, 1.0)], score([4, 9, 14], [0.0, 0.0, 0.0]))
    assert steps.first_wrong.tolist() == [1]


def test_a_rewritten_response_does_not_move_the_steps_of_the_others() -> None:
    finer = score([4, 9, 14], [0.5, 0.25, -1.0])
    rewritten = replace(score([4, 14], [2.0, 3.0], name="other"), scored_text=TEXT)
    alone = join([(9, 1.0), (14, 0.0)], finer)
    columns = score_columns([finer, rewritten])
    labels = [(9, 1.0), (14, 0.0)]
    both = join_labels([rollout(*labels), rollout(*labels, name="other")], columns)
    assert both.num_steps.tolist() == [2, 2]
    np.testing.assert_allclose(both.rewards, [*alone.rewards, 2.0, 3.0])
