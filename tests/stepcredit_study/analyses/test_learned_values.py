from __future__ import annotations

import math

import numpy as np
import pytest

from stepcredit.lab.task import parse_problem
from stepcredit.lab.tutor import MID
from stepcredit.lab.values import step_values
from stepcredit.types import Rollout, StepLabel
from stepcredit_study.analyses.learned_values import LearnedValues, of_labels

PROMPT = "7*8+5="
RIGHT, WRONG = "7*8=6\n6+5=1\n#1", "7*8=6\n6+5=2\n#2"


def values(problem: list[int], step: list[int], learned: list[float], exact: list[float]) -> LearnedValues:
    return LearnedValues(
        problem=np.array(problem),
        step=np.array(step),
        ended=np.array([number == 3 for number in step]),
        learned=np.array(learned),
        exact=np.array(exact),
    )


def labelled(response: str, *labels: float) -> Rollout:
    ends = [index + 1 for index, character in enumerate(response) if character == "\n"] + [len(response)]
    return Rollout(
        id=response,
        prompt_id="p",
        prompt=PROMPT,
        response=response,
        step_labels=tuple(StepLabel(end, label) for end, label in zip(ends, labels, strict=True)),
    )


def test_each_distinct_prefix_stands_once_beside_its_exact_value() -> None:
    learned = of_labels([labelled(RIGHT, 0.5, 0.9, 1.0), labelled(WRONG, 0.5, 0.1, 0.0)], MID)
    assert learned.step.tolist() == [1, 2, 3, 2, 3]
    assert learned.ended.tolist() == [False, False, True, False, True]
    assert learned.learned.tolist() == [0.5, 0.9, 1.0, 0.1, 0.0]
    right = step_values(MID, parse_problem(PROMPT), RIGHT)
    assert learned.exact[:3] == pytest.approx(right)
    assert learned.exact[3:].tolist() == [0.0, 0.0]


def test_rank_correlation_is_within_problems() -> None:
    learned = values([0, 0, 0, 1, 1, 1], [1] * 6, [1, 2, 3, 30, 20, 10], [0.1, 0.2, 0.3, 0.1, 0.2, 0.3])
    assert learned.rank_correlation() == pytest.approx(0.0)  # 1 in the first problem, -1 in the second


def test_order_counts_pairs_of_one_problem_and_one_length() -> None:
    # Of the pairs of step 1: (0.1, 0.2) right, (0.1, 0.3) right, (0.2, 0.3) wrong; equal values do not count.
    learned = values([0, 0, 0, 0, 1], [1, 1, 1, 2, 1], [1, 3, 2, 9, 9], [0.1, 0.2, 0.3, 0.0, 0.0])
    assert learned.order() == pytest.approx(1 / 3)


def test_positions_are_steps_or_the_answer() -> None:
    learned = values([0, 0, 0], [1, 2, 3], [0.5, 0.6, 1.0], [0.4, 0.8, 1.0])
    assert learned.at("2").learned.tolist() == [0.6]
    assert learned.at("answer").distance() == 0.0
    assert learned.distance() == pytest.approx(0.1)


def naive_calibration_error(learned: list[float], exact: list[float]) -> float:
    bins: dict[int, list[int]] = {}
    for index, value in enumerate(learned):
        bins.setdefault(min(int(value * 10), 9), []).append(index)
    gaps = [abs(math.fsum(learned[index] - exact[index] for index in held)) for held in bins.values()]
    return math.fsum(gaps) / len(learned)


def test_calibration_error_is_that_of_its_definition_over_all_and_by_position() -> None:
    generator = np.random.default_rng(5)
    learned, exact = generator.random((2, 300))
    learned[:2] = 0.0, 1.0  # the ends of the first and the last bin
    step = generator.integers(1, 4, 300)
    both = values([0] * 300, step.tolist(), learned.tolist(), exact.tolist())
    numbers = both.numbers("v", ("1", "2", "answer"))
    assert numbers["v/calibration-error"] == pytest.approx(
        naive_calibration_error(learned.tolist(), exact.tolist()), abs=1e-12
    )
    for number, position in ((1, "1"), (2, "2"), (3, "answer")):
        at = step == number
        assert numbers[f"v/calibration-error/{position}"] == pytest.approx(
            naive_calibration_error(learned[at].tolist(), exact[at].tolist()), abs=1e-12
        )


def test_what_cannot_be_compared_is_not_a_number_and_is_left_out() -> None:
    learned = values([0, 1], [1, 1], [0.5, 0.6], [0.4, 0.8])
    assert np.isnan(learned.rank_correlation())
    assert np.isnan(learned.order())
    numbers = learned.numbers("v", ("1", "answer"))
    assert numbers == pytest.approx(
        {"v/calibration-error": 0.15, "v/calibration-error/1": 0.15, "v/distance/1": 0.15}
    )
