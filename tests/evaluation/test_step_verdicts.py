import itertools
import math

import numpy as np
import pytest
from sklearn import metrics
from tests.evaluation.builders import random_steps

from stepcredit.evaluation.labelled_steps import LabelledSteps, step_probabilities
from stepcredit.evaluation.step_verdicts import best_verdict_threshold, judge_steps


def test_verdicts_are_sklearns_f1s() -> None:
    steps = random_steps()
    verdicts = judge_steps(steps, "reward", 0.6)
    labelled = steps.labelled
    called_right = step_probabilities(steps.rewards)[labelled] > 0.6
    right = ~steps.wrong[labelled]
    assert verdicts.positive_f1.estimate == pytest.approx(metrics.f1_score(right, called_right))
    assert verdicts.negative_f1.estimate == pytest.approx(metrics.f1_score(~right, ~called_right))
    assert verdicts.prm_score.estimate == pytest.approx(
        (verdicts.positive_f1.estimate + verdicts.negative_f1.estimate) / 2
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_best_threshold_is_the_best_of_all(seed: int) -> None:
    steps = random_steps(10, seed, rounded=seed % 2 == 0)
    probabilities = np.unique(step_probabilities(steps.rewards)[steps.labelled])
    every = [-0.1, *probabilities, *(a / 2 + b / 2 for a, b in itertools.pairwise(probabilities)), 1.1]
    best = max(judge_steps(steps, "reward", float(threshold)).prm_score.estimate for threshold in every)
    chosen = best_verdict_threshold(steps, "reward")
    assert judge_steps(steps, "reward", chosen).prm_score.estimate == pytest.approx(best)


def mean_of_groups(steps: LabelledSteps, groups: np.ndarray, threshold: float) -> list[float]:
    """Step by step: F1 of right steps, of wrong steps, and PRMScore, each a mean over groups that have it."""
    probabilities = step_probabilities(steps.rewards)
    pairs: dict[int, list[tuple[bool, bool]]] = {}
    for step, label in enumerate(steps.labels):
        if not math.isnan(label):
            group = int(groups[steps.response_of_step[step]])
            pairs.setdefault(group, []).append((label >= 0.5, probabilities[step] > threshold))
    figures: list[list[float]] = [[], [], []]
    for group_pairs in pairs.values():
        f1s = []
        for place, kind in enumerate((True, False)):
            if any(right == kind for right, _ in group_pairs):
                hits = sum(right == call == kind for right, call in group_pairs)
                f1s.append(2 * hits / (2 * hits + sum(right != call for right, call in group_pairs)))
                figures[place].append(f1s[-1])
        figures[2].append(sum(f1s) / len(f1s))
    return [sum(values) / len(values) for values in figures]


@pytest.mark.parametrize("seed", range(3))
def test_means_over_groups_are_those_of_each_group_by_itself(seed: int) -> None:
    steps = random_steps(24, seed)
    groups = np.random.default_rng(seed).integers(0, 3, 24)
    verdicts = judge_steps(steps, "reward", 0.6, groups=groups)
    expected = mean_of_groups(steps, groups, 0.6)
    assert (
        verdicts.positive_f1.estimate,
        verdicts.negative_f1.estimate,
        verdicts.prm_score.estimate,
    ) == pytest.approx(expected)
    assert verdicts.prm_score.low < verdicts.prm_score.estimate < verdicts.prm_score.high
    whole = judge_steps(steps, "reward", 0.6, groups=np.zeros(24, dtype=int))
    assert whole == judge_steps(steps, "reward", 0.6)


def test_a_group_without_wrong_steps_has_no_negative_f1_and_one_whose_wrong_steps_are_missed_has_zero() -> (
    None
):
    steps = random_steps(20)
    right = np.nan_to_num(steps.labels, nan=1.0) >= 0.5
    only_right = np.array([right[steps.offsets[i] : steps.offsets[i + 1]].all() for i in range(20)])
    part = steps.select(only_right)
    assert math.isnan(judge_steps(part, "reward", 0.5).negative_f1.estimate)
    assert judge_steps(part, "reward", 0.5).prm_score == judge_steps(part, "reward", 0.5).positive_f1
    assert judge_steps(steps, "reward", -1.0).negative_f1.estimate == 0.0
    grouped = judge_steps(steps, "reward", 0.5, groups=only_right.astype(int))
    alone = judge_steps(steps.select(~only_right), "reward", 0.5)
    assert grouped.negative_f1.estimate == pytest.approx(alone.negative_f1.estimate)


def test_the_best_threshold_of_groups_is_the_best_of_all() -> None:
    steps, groups = random_steps(10, 2), np.arange(10) % 2
    probabilities = np.unique(step_probabilities(steps.rewards)[steps.labelled])
    every = [-0.1, *(a / 2 + b / 2 for a, b in itertools.pairwise(probabilities)), 1.1]
    best = max(
        judge_steps(steps, "reward", float(value), groups=groups).prm_score.estimate for value in every
    )
    chosen = best_verdict_threshold(steps, "reward", groups)
    assert judge_steps(steps, "reward", chosen, groups=groups).prm_score.estimate == pytest.approx(best)


def test_wrong_steps_of_one_problem_give_no_interval() -> None:
    steps = random_steps(8)
    wrong = np.array([steps.wrong[steps.offsets[i] : steps.offsets[i + 1]].any() for i in range(8)])
    one = steps.select(np.arange(8) == int(np.argmax(wrong)))
    verdicts = judge_steps(LabelledSteps.merge([one, steps.select(~wrong)]), "reward", 0.5)
    assert math.isfinite(verdicts.negative_f1.estimate)
    assert math.isnan(verdicts.negative_f1.low)
