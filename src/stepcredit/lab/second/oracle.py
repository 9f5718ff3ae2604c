"""Which steps of a response of the second lab are wrong, by rule.

A step is right if it belongs where it stands, starts from the right number and states the right one. So what
follows an error is wrong, until a line undoes it; after a step that is none in this lab everything is wrong.
"""

from __future__ import annotations

from dataclasses import replace

from stepcredit.lab.checks import STEP_RULE, StepCheck
from stepcredit.lab.second.lines import (
    ASIDE,
    BACK,
    REDONE,
    Line,
    State,
    after,
    parse_answer,
    parse_line,
    start,
)
from stepcredit.lab.task import LARGEST_OPERAND, SMALLEST_OPERAND, Problem, apply
from stepcredit.steps import split
from stepcredit.types import Step


def check_steps(problem: Problem, response: str) -> tuple[StepCheck, ...]:
    """Check each step of any text that claims to solve ``problem``.

    White space around a step is ignored.
    """
    checks: list[StepCheck] = []
    state: State | None = start(problem)
    for step in split(response, STEP_RULE):
        text = step.text.strip()
        answer, line = parse_answer(text, problem), parse_line(text, problem)
        if state is None or (answer is None and line is None):
            formed = answer is not None or line is not None
            checks.append(StepCheck(step, "", formed, False, False, False, False))
            state = None
        elif answer is not None:
            checks.append(_of_answer(problem, state, step, answer))
            state = None
        else:
            assert line is not None
            checks.append(_of_line(problem, state, step, line))
            state = after(problem, state, line)
    return tuple(checks)


def _of_answer(problem: Problem, state: State, step: Step, answer: int) -> StepCheck:
    due = state.done == len(problem.operands) and state.stage != "away"
    carried = answer == state.value
    right = due and carried and problem.number(answer) == problem.answer
    return StepCheck(step, f"#{problem.answer}", True, carried, due, True, right)


def _of_line(problem: Problem, state: State, step: Step, line: Line) -> StepCheck:
    left, symbol, operand = _due(problem, state, line)
    possible = after(problem, state, line) is not None
    operation = possible and line.symbol == symbol and line.operand == operand
    carried = possible and line.left == left
    follows = apply(line.symbol, line.left, line.operand, problem.modulus) == line.result
    truth = _truth(problem, state, line) if possible else None
    right = operation and truth is not None and (line.left, line.result) == truth
    expected = "" if truth is None else replace(line, left=truth[0], result=truth[1]).text(problem)
    return StepCheck(step, expected, True, carried, operation, follows, right)


def _due(problem: Problem, state: State, line: Line) -> tuple[int, str, int | None]:
    """Left side, operation and operand that a line of this form would have here."""
    if line.form == ASIDE:
        away = SMALLEST_OPERAND <= line.operand <= LARGEST_OPERAND
        return state.value, "+", line.operand if away else None
    if line.form == BACK:
        return state.value, "-", state.held
    place = state.done - 1 if line.form in REDONE else state.done
    left = state.held if line.form in REDONE else state.value
    if not 0 <= place < len(problem.operands):
        return left, "", None
    return left, problem.operations[place], problem.operands[place]


def _truth(problem: Problem, state: State, line: Line) -> tuple[int, int]:
    """The right number to start from, and the right result."""
    path = (problem.start, *problem.results)
    here = path[state.done]
    if line.form == ASIDE:
        return here, (here + line.operand) % problem.modulus
    if line.form == BACK:
        return (here + state.held) % problem.modulus, here
    if line.form in REDONE:
        return path[state.done - 1], here
    return here, path[state.done + 1]
