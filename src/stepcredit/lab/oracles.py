"""Which steps of a response are wrong, by rule."""

from __future__ import annotations

import re
from functools import lru_cache

from stepcredit.lab.checks import STEP_RULE, StepCheck
from stepcredit.lab.second import oracle as second
from stepcredit.lab.task import ANSWER_MARK, Problem, apply, parse_problem
from stepcredit.steps import split
from stepcredit.types import Rollout, StepLabel

_CALCULATION = re.compile(r"([0-9])([-+*<>])([0-9])=([0-9])")
_ANSWER = re.compile(rf"{ANSWER_MARK}([0-9])")


def check_steps(problem: Problem, response: str) -> tuple[StepCheck, ...]:
    """Check each step of any text that claims to solve ``problem``.

    White space around a step is ignored.
    """
    if problem.modulus > 10:
        return second.check_steps(problem, response)
    expected = problem.solution.split("\n")
    checks: list[StepCheck] = []
    digit: int | None = problem.start
    for step in split(response, STEP_RULE):
        text = step.text.strip()
        wanted = expected[step.index] if step.index < len(expected) else ""
        well_formed, carried, operation, follows, digit = _check_line(problem, step.index, text, digit)
        right = text == wanted and text != "" and all(check.right for check in checks[-1:])
        checks.append(StepCheck(step, wanted, well_formed, carried, operation, follows, right))
    return tuple(checks)


def _check_line(
    problem: Problem, index: int, text: str, digit: int | None
) -> tuple[bool, bool, bool, bool, int | None]:
    """Well-formed, carried, operation, follows, and the digit that the line states."""
    num_operations = len(problem.operands)
    if answer := _ANSWER.fullmatch(text):
        stated = int(answer[1])
        return True, stated == digit, index == num_operations, True, stated
    calculation = _CALCULATION.fullmatch(text)
    if calculation is None:
        return False, False, False, False, None
    left, symbol, operand, stated = (
        int(calculation[1]),
        calculation[2],
        int(calculation[3]),
        int(calculation[4]),
    )
    operation = (
        index < num_operations and symbol == problem.operations[index] and operand == problem.operands[index]
    )
    return True, left == digit, operation, apply(symbol, left, operand, problem.modulus) == stated, stated


def first_wrong_step(problem: Problem, response: str) -> int | None:
    """Index of the first wrong step, whether a later one undoes it or not, or ``None``.

    ``None`` does not mean that the response is right: it may end too soon.
    """
    return next((check.step.index for check in check_steps(problem, response) if not check.right), None)


def label_steps(rollout: Rollout) -> tuple[StepLabel, ...]:
    """True step labels: 1 for right steps, 0 for wrong ones.

    In the first lab all steps from the first wrong one on are wrong; in the second a step can undo an error.

    Raises:
        DataError: The rollout's prompt is not a problem of the lab.
    """
    return _labels_of(parse_problem(rollout.prompt), rollout.response)


@lru_cache(maxsize=1024)
def _labels_of(problem: Problem, response: str) -> tuple[StepLabel, ...]:
    """Equal responses to a problem mostly follow each other."""
    checks = check_steps(problem, response)
    return tuple(StepLabel(check.step.end, float(check.right)) for check in checks)
