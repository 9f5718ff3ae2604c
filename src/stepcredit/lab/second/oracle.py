"""Which steps of a response of the second lab are wrong, by rule.

A step is right if it belongs where it stands, starts from the right number and states the right one. So what
follows an error is wrong, until a line undoes it; after a step that is none in this lab everything is wrong.
"""

from __future__ import annotations

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
from stepcredit.lab.task import LARGEST_OPERAND, SMALLEST_OPERAND, STEP_RULE, Problem
from stepcredit.steps import split
from stepcredit.types import StepLabel


def check_steps(problem: Problem, response: str) -> tuple[StepLabel, ...]:
    """Label each step of any text that claims to solve ``problem``: 1 for right steps, 0 for wrong ones.

    White space around a step is ignored.
    """
    labels: list[StepLabel] = []
    state: State | None = start(problem)
    for step in split(response, STEP_RULE):
        text = step.text.strip()
        line = parse_line(text, problem)
        following = after(problem, state, line) if state and line else None
        if state and line and following:
            right = _is_right(problem, state, line)
        else:
            right = state is not None and _is_right_answer(problem, state, text)
        labels.append(StepLabel(step.end, float(right)))
        state = following
    return tuple(labels)


def _is_right_answer(problem: Problem, state: State, text: str) -> bool:
    answer = parse_answer(text, problem)
    due = state.done == len(problem.operands) and state.stage != "away"
    return due and answer == state.value and problem.number(answer) == problem.answer


def _is_right(problem: Problem, state: State, line: Line) -> bool:
    """Whether a line that may stand here starts, goes on and ends as the right solution would."""
    path = (problem.start, *problem.results)
    here = path[state.done]
    if line.form == ASIDE:
        due = (here, "+", line.operand, (here + line.operand) % problem.modulus)
        possible = SMALLEST_OPERAND <= line.operand <= LARGEST_OPERAND
    elif line.form == BACK:
        due = ((here + state.held) % problem.modulus, "-", state.held, here)
        possible = True
    else:
        place = state.done - (line.form in REDONE)
        due = (path[place], problem.operations[place], problem.operands[place], path[place + 1])
        possible = True
    return possible and (line.left, line.symbol, line.operand, line.result) == due
