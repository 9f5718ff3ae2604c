from collections.abc import Sequence

import numpy as np
import pytest

from stepcredit.evaluation.labelled_steps import LabelledSteps
from stepcredit.evaluation.localisation import clustered_auc, localise, shares_of_minimum
from stepcredit.stats import ProblemBootstrap, auc


def labelled(
    responses: Sequence[tuple[Sequence[float], Sequence[float]]], clusters: Sequence[int] | None = None
) -> LabelledSteps:
    """From (labels, rewards) of each response."""
    labels = [label for given, _ in responses for label in given]
    rewards = [reward for _, given in responses for reward in given]
    sizes = [len(given) for given, _ in responses]
    return LabelledSteps(
        ids=tuple(f"r{i}" for i in range(len(responses))),
        problem_ids=tuple(f"p{i}" for i in sorted(set(clusters or range(len(responses))))),
        clusters=np.array(clusters if clusters is not None else range(len(responses))),
        offsets=np.cumsum([0, *sizes]),
        labels=np.array(labels, dtype=np.float64),
        rewards=np.array(rewards, dtype=np.float64),
        values=np.concatenate([np.cumsum(given) for _, given in responses]),
        first_wrong=np.array([list(given).index(0) if 0 in given else -1 for given, _ in responses]),
    )


def test_a_hand_worked_case() -> None:
    steps = labelled(
        [
            ([1, 0, 0], [0.5, -1.0, -2.0]),  # the lowest is after the first error
            ([1, 1, 0], [0.0, 0.25, -0.5]),  # the lowest is the first error, and the last step
            ([1, 1], [0.5, 0.0]),  # right throughout, the lowest is the last step
        ]
    )
    localised = localise(steps)
    # Right before any error: .5, 0, .25, .5, 0. First wrong: -1 and -.5, both below all of them.
    assert (localised.num_right_steps, localised.num_first_wrong_steps) == (5, 2)
    assert localised.auc.estimate == 1.0
    assert localised.lowest_is_first_wrong.estimate == 0.5
    assert localised.minimum_is_last.estimate == 1.0
    assert [(p.index, p.num_right, p.num_first_wrong) for p in localised.by_position] == [
        (0, 3, 0),
        (1, 2, 1),
        (2, 0, 1),
    ]
    assert localised.by_position[1].auc == 1.0
    assert np.isnan(localised.by_position[0].auc)


def test_steps_that_share_the_lowest_reward_share_the_credit() -> None:
    np.testing.assert_allclose(
        shares_of_minimum(np.array([1.0, 1.0, 2.0, 0.0, 3.0]), np.array([0, 3, 4, 5])), [0.5, 0.5, 0, 1, 1]
    )
    localised = localise(labelled([([1, 0], [1.0, 1.0]), ([1, 1], [0.0, 1.0])]))
    assert localised.lowest_is_first_wrong.estimate == 0.5
    assert localised.minimum_is_last.estimate == 0.25


def test_without_errors_there_is_nothing_to_find() -> None:
    localised = localise(labelled([([1, 1], [0.0, 1.0])]))
    assert np.isnan(localised.auc.estimate)
    assert np.isnan(localised.lowest_is_first_wrong.estimate)


def test_the_intervals_of_the_auc_cover_the_truth() -> None:
    # Normal scores one standard deviation apart: AUC = Phi(1 / sqrt(2)) = 0.7602.
    generator = np.random.default_rng(0)
    covered = 0
    bootstrap = ProblemBootstrap(60, num_draws=500)
    for _ in range(200):
        shift = generator.normal(0, 0.0, 60)
        scores = generator.normal(size=(60, 4)) + shift[:, None]
        positive = generator.random((60, 4)) < 0.4
        scores[positive] += 1.0
        clusters = np.repeat(np.arange(60), 4)
        interval = clustered_auc(scores.ravel(), positive.ravel(), ~positive.ravel(), clusters, bootstrap)
        assert interval.estimate == auc(scores.ravel(), positive.ravel())
        covered += interval.low <= 0.76025 <= interval.high
    assert 0.90 <= covered / 200 <= 0.985


def test_values_can_stand_in_for_rewards() -> None:
    steps = labelled([([1, 0], [1.0, 0.5]), ([1, 1], [2.0, 2.0])])
    assert localise(steps, "value").auc.estimate == pytest.approx(0.5 * (1 / 3 + 2 / 3), abs=0.2)
    assert localise(steps, "value").lowest_is_first_wrong.estimate == 0.0
