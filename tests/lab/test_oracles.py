from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.errors import DataError
from stepcredit.lab.oracles import check_steps, first_wrong_step, label_steps
from stepcredit.lab.task import STEP_RULE, Problem
from stepcredit.steps import split
from stepcredit.types import Rollout, StepLabel

PROBLEM = Problem(7, "*+-", (8, 5, 3))
RIGHT = "7*8=6\n6+5=1\n1-3=8\n#8"


@pytest.mark.parametrize(
    ("response", "wrong"),
    [
        (RIGHT, None),
        (RIGHT + "\n", None),
        ("7*8=6\r\n6+5=1\r\n\r\n 1-3=8 \r\n#8", None),  # white space around steps is ignored
        ("7*8=5\n5+5=0\n0-3=7\n#7", 0),  # a wrong result, carried forward
        ("7*8=6\n6+5=2\n2-3=9\n#9", 1),
        ("7*8=6\n6+5=1\n1-3=7\n#7", 2),
        ("7*8=6\n6+5=1\n1-3=8\n#7", 3),  # the answer is not what was found
        ("7*8=6\n8+5=3\n3-3=0\n#0", 1),  # a digit copied wrongly
        ("7*8=6\n6-5=1\n1-3=8\n#8", 1),  # the operation copied wrongly
        ("7*8=6\n6+4=0\n0-3=7\n#7", 1),  # the operand copied wrongly
        ("7*8=6\n1-3=8\n#8", 1),  # a step left out
        ("7*8=6\n6+5=1\n1-3=8\n8+2=0\n#0", 3),  # one step too many
        (RIGHT + "\n#8", 4),  # something after the answer
        ("7*8=6\n#6", 1),  # answered too soon
        ("7*8=6\n6+5=1", None),  # ends too soon: no step is wrong
        ("7*8=6\n6+5=", 1),  # cut off within a step
        ("", 0),
        ("hello", 0),
        ("7*8=6\nsix plus five is 1\n1-3=8\n#8", 1),
        ("7*8=6 6+5=1\n1-3=8\n#8", 0),
        ("7*8=56\n6+5=1", 0),
        ("7*8=٦\n6+5=1", 0),
    ],
)
def test_the_first_wrong_step_of_hand_written_responses(response: str, wrong: int | None) -> None:
    assert first_wrong_step(PROBLEM, response) == wrong


def test_an_error_that_cancels_out_is_still_the_first_wrong_step() -> None:
    problem = Problem(7, "**", (8, 5))  # 6 or 8, times 5, ends in 0
    labels = check_steps(problem, "7*8=8\n8*5=0\n#0")
    assert [label.label for label in labels] == [0.0, 0.0, 0.0]


def test_other_bases_and_operations_are_checked_alike() -> None:
    problem = Problem(3, "*>", (4, 3), modulus=5)
    assert first_wrong_step(problem, "3*4=2\n2>3=3\n#3") is None
    assert first_wrong_step(problem, "3*4=2\n2>3=2\n#2") == 1


@given(st.text(max_size=40) | st.text("0123456789+-*=#\n \r", max_size=40))
def test_any_text_is_checked_step_by_step(response: str) -> None:
    labels = check_steps(PROBLEM, response)
    assert [label.end for label in labels] == [step.end for step in split(response, STEP_RULE)]
    wrong = first_wrong_step(PROBLEM, response)
    assert [label.label == 1 for label in labels] == [wrong is None or i < wrong for i in range(len(labels))]


def test_labels_are_one_up_to_the_first_wrong_step() -> None:
    rollout = Rollout(id="a", prompt_id="p", prompt=PROBLEM.text, response="7*8=6\n6+5=2\n2-3=9\n#9")
    assert label_steps(rollout) == (
        StepLabel(6, 1.0),
        StepLabel(12, 0.0),
        StepLabel(18, 0.0),
        StepLabel(20, 0.0),
    )


def test_a_rollout_of_another_task_has_no_labels() -> None:
    with pytest.raises(DataError, match="not a problem of the lab"):
        label_steps(Rollout(id="a", prompt_id="p", prompt="How many?", response="3"))
