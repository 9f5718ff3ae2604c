"""Exact value of a prefix: the probability that a tutor who goes on from it ends with the right answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stepcredit.lab.second.tutor import SecondTutor
from stepcredit.lab.second.values import value_table as second_value_table
from stepcredit.lab.task import ANSWER_MARK, STEP_RULE, Problem
from stepcredit.lab.tutor import SYMBOLS, Tutor
from stepcredit.steps import split

_CALCULATION = re.compile(r"[0-9][-+*<>][0-9]=([0-9])")
_ANSWER = re.compile(rf"{ANSWER_MARK}[0-9]")


@dataclass(frozen=True, slots=True)
class PrefixState:
    """All that a tutor needs to know of the start of a response.

    Attributes:
        num_done: Operations that are done: complete lines, whatever they say.
        digit: The digit that the last complete line states, the problem's start if there is none.
        opened: What is already written of the next line, a start of what the tutor would write.
        line_open: The last complete line still lacks its line end.
        answer: The final answer if it is already stated.
    """

    num_done: int
    digit: int
    opened: str = ""
    line_open: bool = False
    answer: int | None = None


def read_prefix(problem: Problem, prefix: str) -> PrefixState | None:
    """What a tutor would go on from; ``None`` if ``prefix`` is none that it could go on from.

    A line may be wrong in any way as long as it is a calculation: the tutor goes on from the digit that
    it states, with the problem's operation for the next line.
    """
    lines = prefix.split("\n")
    digit = problem.start
    for index, line in enumerate(lines):
        last = index == len(lines) - 1
        if _ANSWER.fullmatch(line):
            trailing = "".join(lines[index + 1 :])
            return None if trailing.strip() else PrefixState(index, digit, answer=int(line[1]))
        if index < len(problem.operands) and (match := _CALCULATION.fullmatch(line)):
            digit = int(match[1])
            if digit >= problem.modulus:
                return None
            if last:
                return PrefixState(index + 1, digit, line_open=True)
        elif last and next_line(problem, index, digit).startswith(line):
            return PrefixState(index, digit, opened=line)
        else:
            return None
    raise AssertionError("a split text has a last line")


def next_line(problem: Problem, num_done: int, digit: int) -> str:
    """The line after ``num_done`` operations, up to the digit that it states."""
    if num_done == len(problem.operands):
        return ANSWER_MARK
    return f"{digit}{problem.operations[num_done]}{problem.operands[num_done]}="


def value_table(tutor: Tutor, problem: Problem) -> Float[np.ndarray, "steps_and_one digits"]:
    """P(final answer right) for each number of operations done and each digit reached.

    Row ``k``, column ``d``: ``k`` operations are done and the last line states ``d``. The last row is one
    for the right answer's digit; the others follow backwards from the tutor's step probabilities.
    """
    num_operations = len(problem.operands)
    table = np.zeros((num_operations + 1, problem.modulus))
    table[num_operations, int(problem.answer)] = 1.0
    probabilities = tutor.step_probabilities(problem.modulus)
    for done in reversed(range(num_operations)):
        operation = SYMBOLS.index(problem.operations[done])
        table[done] = probabilities[operation, :, problem.operands[done]] @ table[done + 1]
    return table


def prefix_value(tutor: Tutor | SecondTutor, problem: Problem, prefix: str) -> float:
    """Exact P(final answer right | prefix) under the tutor; NaN for what it could not go on from."""
    if isinstance(tutor, SecondTutor):
        return second_value_table(tutor, problem).of_prefix(prefix)
    return _value(read_prefix(problem, prefix), value_table(tutor, problem), problem)


def step_values(tutor: Tutor | SecondTutor, problem: Problem, response: str) -> Float[np.ndarray, " steps"]:
    """Exact P(final answer right | response up to the end of the step), for each step.

    The steps are those of :data:`stepcredit.lab.task.STEP_RULE`. From a step on that a tutor could
    not go on from (see :func:`read_prefix`), values are NaN.
    """
    if isinstance(tutor, SecondTutor):
        return second_value_table(tutor, problem).of_steps(response)
    table = value_table(tutor, problem)
    ends = [step.end for step in split(response, STEP_RULE)]
    return np.array([_value(read_prefix(problem, response[:end]), table, problem) for end in ends])


def _value(
    state: PrefixState | None, table: Float[np.ndarray, "steps_and_one digits"], problem: Problem
) -> float:
    if state is None:
        return float("nan")
    if state.answer is not None:
        return float(state.answer == int(problem.answer))
    return float(table[state.num_done, state.digit])
