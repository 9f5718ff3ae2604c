import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.evaluation.error_finding import (
    ThresholdRange,
    best_threshold,
    find_errors,
    grid_threshold,
    threshold_ranges,
)
from stepcredit.evaluation.labelled_steps import LabelledSteps
from stepcredit.stats import sigmoid

SHARED = Path(__file__).parents[2] / "../shared"


def labelled(responses: list[tuple[int, list[float]]]) -> LabelledSteps:
    """From (index of the first wrong step or -1, step rewards) of each response."""
    sizes = [len(rewards) for _, rewards in responses]
    labels = [
        float(error < 0 or index < error) for error, rewards in responses for index in range(len(rewards))
    ]
    rewards = [reward for _, given in responses for reward in given]
    return LabelledSteps(
        ids=tuple(f"r{i}" for i in range(len(responses))),
        problem_ids=tuple(f"p{i}" for i in range(len(responses))),
        clusters=np.arange(len(responses)),
        offsets=np.cumsum([0, *sizes]),
        labels=np.array(labels),
        rewards=np.array(rewards),
        values=np.array(rewards),
        first_wrong=np.array([error for error, _ in responses]),
    )


def naive_f1(responses: list[tuple[int, list[float]]], threshold: float) -> float:
    """The evaluator's loop, as ProcessBench describes it."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for error, rewards in responses:
        first_below = next((i for i, reward in enumerate(rewards) if reward < threshold), -1)
        hits[error >= 0].append(first_below == error)
    first, second = (sum(kind) / len(kind) if kind else 0.0 for kind in hits.values())
    return 2 * first * second / (first + second) if first + second else 0.0


scores = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])
response = st.lists(scores, min_size=1, max_size=5).flatmap(
    lambda rewards: st.tuples(st.integers(-1, len(rewards) - 1), st.just(rewards))
)


@given(st.lists(response, min_size=1, max_size=8))
def test_the_best_threshold_is_the_best_of_all(responses: list[tuple[int, list[float]]]) -> None:
    steps = labelled(responses)
    threshold = best_threshold(threshold_ranges(steps, "reward"))
    assert math.isfinite(threshold)
    every = [-3.0, -1.5, -0.5, 0.25, 0.75, 2.0, 4.0, -2.0, -1.0, 0.0, 0.5, 1.0, 3.0]
    assert naive_f1(responses, threshold) == pytest.approx(
        max(naive_f1(responses, candidate) for candidate in every)
    )


@given(st.lists(response, min_size=1, max_size=8), st.sampled_from([-1.5, -1.0, 0.0, 0.25, 2.0]))
def test_a_fixed_threshold_gives_what_the_loop_gives(
    responses: list[tuple[int, list[float]]], threshold: float
) -> None:
    errors = [error for error, _ in responses if error >= 0]
    if errors and len(errors) < len(responses):
        findings = find_errors(labelled(responses), "reward", threshold)
        assert findings.f1.estimate == pytest.approx(naive_f1(responses, threshold))


def test_a_file_without_correct_responses_has_no_f1() -> None:
    findings = find_errors(labelled([(0, [-1.0, 1.0])]), "reward", 0.0)
    assert findings.error_accuracy.estimate == 1.0
    assert math.isnan(findings.correct_accuracy.estimate)
    assert math.isnan(findings.f1.estimate)


@pytest.mark.parametrize("family", ["chatml", "llama3"])
def test_the_oracle_threshold_is_the_published_evaluators(family: str) -> None:
    folder = SHARED / "golden" / family
    if not folder.is_dir():
        pytest.skip("golden files are not there")
    items, expected, given = (
        json.loads((folder / f"processbench_{name}.json").read_text())
        for name in ("items", "threshold_expected", "expected")
    )
    responses = [
        (item["label"], sigmoid(100 * np.array(rewards)).tolist())
        for item, rewards in zip(items, given["rewards"], strict=True)
    ]
    steps = labelled(responses)
    threshold, value = grid_threshold(threshold_ranges(steps, "reward"))
    assert threshold == expected["threshold"]
    assert value == pytest.approx(expected["f1"], abs=1e-12)
    assert naive_f1(responses, best_threshold(threshold_ranges(steps, "reward"))) >= value


def test_a_threshold_range_holds_its_upper_end() -> None:
    ranges = ThresholdRange(np.array([0.0]), np.array([1.0]), np.array([True]))
    assert [bool(ranges.right(threshold)[0]) for threshold in (0.0, 0.5, 1.0, 1.1)] == [
        False,
        True,
        True,
        False,
    ]
