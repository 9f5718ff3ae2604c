"""Exact value of a prefix: the probability that a tutor who goes on from it ends with the right answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stepcredit.lab.oracles import check_steps
from stepcredit.lab.task import ANSWER_MARK, Problem
from stepcredit.lab.tutor import SYMBOLS, Tutor

_LINE = re.compile(r"\d[-+*<>]\d=(\d)")


@dataclass(frozen=True, slots=True)
class PrefixState:
    """All that a tutor needs to know of the start of a response.

    Attributes:
        num_done: Operations that are done: complete lines, whatever they say.
        digit: The digit that the last complete line states, the problem's start if there is none.
        opened: What is already written of the next line, a start of what the tutor would write.
        answer: The final answer if it is already stated.
    """

    num_done: int
    digit: int
    opened: str = ""
    answer: int | None = None


def read_prefix(problem: Problem, prefix: str) -> PrefixState | None:
    """What a tutor would go on from; ``None`` if ``prefix`` is none that it could go on from.

    A line may be wrong in any way as long as it is a calculation: the tutor goes on from the digit that
    it states, with the problem's operation for the next line. A line without its line end counts as
    complete; its digit is written.
    """
    lines = prefix.split("\n")
    digit = problem.start
    for index, line in enumerate(lines):
        last = index == len(lines) - 1
        if re.fullmatch(rf"{ANSWER_MARK}\d", line):
            return PrefixState(index, digit, answer=int(line[1])) if last else None
        if index < len(problem.operands) and (match := _LINE.fullmatch(line)):
            digit = int(match[1])
            if digit >= problem.modulus:
                return None
            if last:
                return PrefixState(index + 1, digit, opened=line)
        elif last and _next_line(problem, index, digit).startswith(line):
            return PrefixState(index, digit, opened=line)
        else:
            return None
    raise AssertionError("a split text has a last line")


def _next_line(problem: Problem, num_done: int, digit: int) -> str:
    """The next line up to the digit that the tutor draws."""
    if num_done == len(problem.operands):
        return ANSWER_MARK
    return f"{digit}{problem.operations[num_done]}{problem.operands[num_done]}="
