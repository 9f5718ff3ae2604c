"""Tutors of the second lab: their errors are misconceptions and slips, and they undo some of the slips.

A result is first slipped on, with some probability: it is then 1 or 10 too large or too small, each as
likely. Otherwise, if the fact (last digit, operation, operand) is misconceived, it has that fact's one
particular wrong last digit with that fact's own strength. Otherwise it is right. Facts are those of the first
lab.

A tutor writes a whole response in one style. After a step it may write the operation again, drawing the
result anew: often if it has slipped, sometimes if it has not (it takes misconceptions for right), and as a
check. In the verbose style it may first go on a detour: add a digit, and subtract it again.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int

from stepcredit.lab import tutor as first
from stepcredit.lab.second.lines import (
    ASIDE,
    BACK,
    CAREFUL,
    CHECK,
    TERSE,
    VERBOSE,
    WAIT,
    Line,
    State,
    after,
    start,
)
from stepcredit.lab.task import ANSWER_MARK, LARGEST_OPERAND, OPERATIONS, SMALLEST_OPERAND, Problem, apply
from stepcredit.lab.tutor import SYMBOLS

SLIPS: Final = (1, -1, 10, -10)
DETOURS: Final = tuple(range(SMALLEST_OPERAND, LARGEST_OPERAND + 1))
"""By how much a detour goes away, each as likely."""


@dataclass(frozen=True, slots=True)
class Style:
    """A way to write.

    Attributes:
        share: Of the responses.
        detour: Probability of a detour before an operation.
        check: Probability of a check after one.
    """

    share: float
    detour: float
    check: float


STYLES: Final = {
    TERSE: Style(share=0.34, detour=0.0, check=0.0),
    CAREFUL: Style(share=0.33, detour=0.0, check=0.3),
    VERBOSE: Style(share=0.33, detour=0.25, check=0.0),
}


@dataclass(frozen=True, slots=True)
class Move:
    """A line that a tutor may write next, but for its result.

    Attributes:
        probability: Of this kind of line.
        line: Its form, left side and operation; the result is not drawn yet.
    """

    probability: float
    line: Line


@dataclass(frozen=True, slots=True)
class SecondTutor:
    """A writer of responses of the second lab.

    Attributes:
        misconceived: Share of the facts of each operation that are misconceived.
        slip: Probability that a result is slipped on.
        notice: Probability that it writes an operation again that it slipped on.
        doubt: Probability that it does so without having slipped.
    """

    name: str
    misconceived: float
    slip: float
    notice: float
    doubt: float

    def results(self, modulus: int) -> Float[np.ndarray, "operation left operand result"]:
        """Exact distribution of the result that a line states; the first axis follows ``SYMBOLS``."""
        return _results(self, modulus)

    def slipped(self, modulus: int) -> Bool[np.ndarray, "operation left operand result"]:
        """Whether a result is neither right nor the tutor's misconception."""
        return _slipped(self, modulus)

    def moves(self, problem: Problem, state: State) -> Iterator[Move]:
        """What may come next; nothing where the answer does, which has one spelling.

        Where the answer is one of several possibilities (after the last operation), the probabilities of
        the moves sum to that of the others.
        """
        if state.stage == "away":
            yield Move(1.0, Line(BACK, state.value, "-", state.held, -1))
            return
        rest = 1.0
        if state.stage == "stated":
            for form, probability in self.again(problem, state).items():
                rest -= probability
                symbol, operand = problem.operations[state.done - 1], problem.operands[state.done - 1]
                yield Move(probability, Line(form, state.held, symbol, operand, -1))
        if state.done == len(problem.operands):
            return
        styles = STYLES if state.style is None else (state.style,)
        for name in styles:
            style = STYLES[name]
            share = rest * (style.share if state.style is None else 1.0)
            detour = 0.0 if state.stage == "returned" else style.detour
            for away in DETOURS if detour else ():
                yield Move(share * detour / len(DETOURS), Line(ASIDE, state.value, "+", away, -1))
            symbol, operand = problem.operations[state.done], problem.operands[state.done]
            yield Move(share * (1 - detour), Line(name, state.value, symbol, operand, -1))

    def again(self, problem: Problem, state: State) -> dict[str, float]:
        """Form of a line that repeats the last operation, to its probability."""
        assert state.style is not None
        done = state.done - 1
        fact = SYMBOLS.index(problem.operations[done]), state.held, problem.operands[done]
        has_slipped = self.slipped(problem.modulus)[(*fact, state.value)]
        chances = {WAIT: self.notice if has_slipped else self.doubt, CHECK: STYLES[state.style].check}
        return {form: chance for form, chance in chances.items() if chance}

    def write(self, problems: Sequence[Problem], *, seed: int | Sequence[int]) -> list[str]:
        """One response to each problem (without end-of-turn), all drawn from ``seed``."""
        generator = np.random.default_rng(seed)
        return [self._write(problem, generator) for problem in problems]

    def _write(self, problem: Problem, generator: np.random.Generator) -> str:
        state = start(problem)
        lines: list[str] = []
        while True:
            moves = tuple(self.moves(problem, state))
            place = bisect(list(accumulate(move.probability for move in moves)), generator.random())
            # Rounding may leave the sum of the probabilities a little below 1.
            if place == len(moves) and state.done < len(problem.operands):
                place -= 1
            if place == len(moves):
                return "\n".join([*lines, f"{ANSWER_MARK}{problem.number(state.value)}"])
            line = moves[place].line
            row = _cumulative(self, problem.modulus)[SYMBOLS.index(line.symbol), line.left, line.operand]
            result = int(np.searchsorted(row, generator.random(), side="right"))
            line = replace(line, result=result)
            lines.append(line.text(problem))
            following = after(problem, state, line)
            assert following is not None, "a tutor writes only what it can go on from"
            state = following


SECOND_TUTORS: Final = {
    tutor.name: tutor
    for tutor in (
        SecondTutor("weak", misconceived=0.42, slip=0.16, notice=0.4, doubt=0.08),
        SecondTutor("mid", misconceived=0.33, slip=0.13, notice=0.4, doubt=0.08),
        SecondTutor("strong", misconceived=0.18, slip=0.09, notice=0.4, doubt=0.08),
    )
}


@cache
def _believed(
    tutor: SecondTutor, modulus: int
) -> tuple[Int[np.ndarray, "operation left operand"], Int[np.ndarray, "operation left operand"]]:
    """The right result of each fact, and the one that the tutor takes for right in its worse moments."""
    facts = first.misconceptions()
    shift = (facts.wrong - facts.right) % 10
    misconceived = facts.rank < round(tutor.misconceived * 10 * len(DETOURS))
    shift = np.where(misconceived, shift, 0)[:, np.arange(modulus) % 10, :]
    right = np.array(
        [[[apply(s, u, o, modulus) for o in range(10)] for u in range(modulus)] for s in OPERATIONS]
    )
    believed = right - right % 10 + (right + shift) % 10
    return right, believed


@cache
def _slipped(tutor: SecondTutor, modulus: int) -> Bool[np.ndarray, "operation left operand result"]:
    right, believed = _believed(tutor, modulus)
    stated = np.arange(modulus)
    table: Bool[np.ndarray, "operation left operand result"]
    table = (stated != right[..., None]) & (stated != believed[..., None])
    table.setflags(write=False)
    return table


@cache
def _results(tutor: SecondTutor, modulus: int) -> Float[np.ndarray, "operation left operand result"]:
    right, believed = _believed(tutor, modulus)
    strength = first.misconceptions().strength[:, np.arange(modulus) % 10, :, None]
    identity = np.eye(modulus)
    table: Float[np.ndarray, "operation left operand result"]
    table = (1 - tutor.slip) * ((1 - strength) * identity[right] + strength * identity[believed])
    for slip in SLIPS:
        table += tutor.slip / len(SLIPS) * identity[(right + slip) % modulus]
    table.setflags(write=False)
    return table


@cache
def _cumulative(tutor: SecondTutor, modulus: int) -> Float[np.ndarray, "operation left operand result"]:
    """Cumulative probabilities without the last (which is one, but for rounding)."""
    cumulative: Float[np.ndarray, "operation left operand result"]
    cumulative = np.cumsum(_results(tutor, modulus), axis=-1)[..., :-1]
    return cumulative
