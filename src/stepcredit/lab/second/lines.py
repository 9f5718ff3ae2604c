"""What the second lab's responses are made of: lines, and what each changes.

A response to ``130:63*7+5=`` may be::

    so 63*7=61               a step, in one of three styles
    wait, 63*7=51            the same operation again, which undoes an error (or makes one)
    check 63*7=51            the same, out of care
    aside 51+4=55            a detour ...
    back 55-4=51             ... and the way back from it
    so 51+5=56
    #56                      the answer

Whatever a line says, the next one goes on from the number that it states.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from stepcredit.lab.task import ANSWER_MARK, Problem

TERSE, CAREFUL, VERBOSE = "terse", "careful", "verbose"
WAIT, CHECK, ASIDE, BACK = "wait", "check", "aside", "back"
MAIN_FORMS: Final = (TERSE, CAREFUL, VERBOSE)
"""Styles; in a response's first line they say how the tutor writes all of it."""
REDONE: Final = (WAIT, CHECK)
"""Lines that repeat the last operation."""

_OPENINGS: Final[Mapping[str, str]] = {
    TERSE: "",
    CAREFUL: "so ",
    VERBOSE: "take {left}, then {symbol}{operand}, so ",
    WAIT: "wait, ",
    CHECK: "check ",
    ASIDE: "aside ",
    BACK: "back ",
}
WORDS: Final = ("take", " then", " so", "so", "wait", "check", "aside", "back", ",", " ")
"""Tokens of the lines beside the characters of :mod:`stepcredit.lab.tokenizer`."""

_CALCULATION = re.compile(
    r"(?:(so|wait,|check|aside|back) |take ([0-9]{2,3}), then ([-+*<>])([0-9]), so )?"
    r"([0-9]{2,3})([-+*<>])([0-9])=([0-9]{2,3})"
)
_ANSWER = re.compile(rf"{ANSWER_MARK}([0-9]{{2,3}})")

Stage = Literal["ready", "stated", "away", "returned"]


@dataclass(frozen=True, slots=True)
class Line:
    """A calculation.

    Attributes:
        form: Its wording: a style, or what kind of other line it is.
        left: The number it starts from.
    """

    form: str
    left: int
    symbol: str
    operand: int
    result: int

    def opening(self, problem: Problem) -> str:
        """The text up to the result."""
        left = problem.number(self.left)
        words = _OPENINGS[self.form].format(left=left, symbol=self.symbol, operand=self.operand)
        return f"{words}{left}{self.symbol}{self.operand}="

    def text(self, problem: Problem) -> str:
        """The whole line, without its end."""
        return self.opening(problem) + problem.number(self.result)


def parse_line(text: str, problem: Problem) -> Line | None:
    """The calculation that a line is; ``None`` if it is none in a form of this lab."""
    match = _CALCULATION.fullmatch(text)
    if match is None:
        return None
    word, left, symbol, operand, *calculation = match.groups()
    if left is not None and [left, symbol, operand] != calculation[:3]:
        return None
    form = VERBOSE if left is not None else {None: TERSE, "so": CAREFUL}.get(word, (word or "").rstrip(","))
    line = Line(form, int(calculation[0]), calculation[1], int(calculation[2]), int(calculation[3]))
    # A number has one spelling, so that a line is its text.
    return line if max(line.left, line.result) < problem.modulus and line.text(problem) == text else None


def parse_answer(text: str, problem: Problem) -> int | None:
    """The number that an answer states; ``None`` if the line is no answer."""
    match = _ANSWER.fullmatch(text)
    if match is None:
        return None
    number = int(match[1])
    return number if number < problem.modulus and problem.number(number) == match[1] else None


@dataclass(frozen=True, slots=True)
class State:
    """All that a tutor needs to know of the lines so far.

    Attributes:
        done: Operations that are done.
        value: The number that the last line states; the problem's start if there is none.
        style: Of :data:`MAIN_FORMS`; ``None`` before the first line.
        stage: ``ready``: the next operation is due, perhaps after a detour. ``stated``: likewise, or the last
            operation again. ``away``: on a detour. ``returned``: back from it, so that the next operation is
            due.
        held: Where the last operation started (``stated``), or by how much the detour went away (``away``).
    """

    done: int
    value: int
    style: str | None = None
    stage: Stage = "ready"
    held: int = 0


def start(problem: Problem) -> State:
    """The state before the first line."""
    return State(0, problem.start)


def after(problem: Problem, state: State, line: Line) -> State | None:
    """What a tutor goes on from after a line, right or wrong; ``None`` where it could not be written.

    Numbers and operations may be any; the kind of line must be possible where it stands.
    """
    left = state.done < len(problem.operands)
    if line.form in MAIN_FORMS:
        return State(state.done + 1, line.result, line.form, "stated", line.left) if left else None
    if line.form in REDONE:
        return replace(state, value=line.result, stage="ready", held=0) if state.stage == "stated" else None
    if line.form == ASIDE:
        possible = left and state.stage in ("ready", "stated")
        return State(state.done, line.result, VERBOSE, "away", line.operand) if possible else None
    return replace(state, value=line.result, stage="returned", held=0) if state.stage == "away" else None
