"""Exact value of a prefix in the second lab: the probability that a tutor who goes on from it ends right.

Values of whole lines follow backwards from the last operation; the value of a line that has been begun is
the mean over the lines that begin so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from stepcredit.lab.second.lines import State, after, parse_answer, parse_line, start
from stepcredit.lab.second.tutor import DETOURS, STYLES, SecondTutor, Style
from stepcredit.lab.task import ANSWER_MARK, STEP_RULE, Problem
from stepcredit.lab.tutor import SYMBOLS
from stepcredit.steps import split

_PLUS, _MINUS = SYMBOLS.index("+"), SYMBOLS.index("-")
_AWAY = range(10)
"""How far a detour may go; the tutor comes back from any, also from those that only a policy makes."""

NAN = float("nan")
ByNumber = Float[np.ndarray, " numbers"]


@dataclass(frozen=True, slots=True)
class Values:
    """P(final answer right) when some operations are done, by the number that the last line states.

    Attributes:
        ready: The next operation is due, perhaps after a detour.
        returned: The next operation is due.
        away: On a detour, by how far it went.
        stated: The next operation is due, or this one again; by the number that this one started from, then
            by the one that it stated. Before the first operation there is none.
    """

    ready: ByNumber
    returned: ByNumber
    away: Mapping[int, ByNumber]
    stated: Float[np.ndarray, "numbers numbers"] | None = None


@lru_cache(maxsize=64)
def value_table(tutor: SecondTutor, problem: Problem) -> ValueTable:
    """The values of a problem; those of the last few problems are kept."""
    return ValueTable(tutor, problem)


class ValueTable:
    """All values of a problem under a tutor, by dynamic programming."""

    def __init__(self, tutor: SecondTutor, problem: Problem) -> None:
        self.tutor, self.problem = tutor, problem
        self._by_style = {name: self._backwards(style) for name, style in STYLES.items()}

    def of_state(self, state: State) -> float:
        """The value after whole lines."""
        if state.style is None:
            return sum(
                style.share * self.of_state(replace(state, style=name)) for name, style in STYLES.items()
            )
        values = self._by_style[state.style][state.done]
        if state.stage == "stated":
            assert values.stated is not None
            return float(values.stated[state.held, state.value])
        if state.stage == "away":
            return float(values.away[state.held][state.value])
        return float((values.ready if state.stage == "ready" else values.returned)[state.value])

    def of_prefix(self, prefix: str) -> float:
        """The value of any start of a response; NaN for what the tutor could not go on from."""
        *lines, opened = prefix.split("\n")
        for place, line in enumerate(lines):
            answer = parse_answer(line, self.problem)
            if answer is not None:
                return NAN if "".join([*lines[place + 1 :], opened]).strip() else self._of_answer(answer)
        state = self._read(lines)
        if state is None:
            return NAN
        return self._of_opened(state, opened) if opened else self.of_state(state)

    def lines_after(self, prefix: str) -> Iterator[tuple[str, float, float]]:
        """Every line that may follow whole lines, with its probability and the value after it."""
        state = self._read(prefix.split("\n")[:-1])
        return iter(()) if state is None else self._next(state)

    def of_steps(self, response: str) -> Float[np.ndarray, " steps"]:
        """The value at the end of each line; NaN from one on that the tutor could not go on from."""
        values: list[float] = []
        state: State | None = start(self.problem)
        for step in split(response, STEP_RULE):
            text = step.text.strip()
            answer = parse_answer(text, self.problem)
            if state is not None and answer is not None:
                values.append(self._of_answer(answer))
                state = None
                continue
            state = None if state is None else self._after(state, text)
            values.append(NAN if state is None else self.of_state(state))
        return np.array(values)

    def _read(self, lines: Sequence[str]) -> State | None:
        state: State | None = start(self.problem)
        for line in lines:
            state = None if state is None else self._after(state, line)
        return state

    def _after(self, state: State, text: str) -> State | None:
        line = parse_line(text, self.problem)
        return None if line is None else after(self.problem, state, line)

    def _of_answer(self, answer: int) -> float:
        return float(answer == int(self.problem.answer))

    def _of_opened(self, state: State, opened: str) -> float:
        possible = [(chance, value) for text, chance, value in self._next(state) if text.startswith(opened)]
        total = sum(chance for chance, _ in possible)
        if total > 0:
            return sum(chance * value for chance, value in possible) / total
        # A whole line that this tutor would not write: it goes on from what the line states.
        answer = parse_answer(opened, self.problem)
        if answer is not None:
            return self._of_answer(answer)
        following = self._after(state, opened)
        return NAN if following is None else self.of_state(following)

    def _next(self, state: State) -> Iterator[tuple[str, float, float]]:
        """Every line that may come next, with its probability and the value after it."""
        rest = 1.0
        for move in self.tutor.moves(self.problem, state):
            rest -= move.probability
            place = SYMBOLS.index(move.line.symbol), move.line.left, move.line.operand
            chances = self.tutor.results(self.problem.modulus)[place]
            for result in np.flatnonzero(chances).tolist():
                line = replace(move.line, result=result)
                following = after(self.problem, state, line)
                assert following is not None, "a tutor writes only what it can go on from"
                chance = move.probability * float(chances[result])
                yield line.text(self.problem), chance, self.of_state(following)
        if state.done == len(self.problem.operands) and state.stage != "away":
            answer = f"{ANSWER_MARK}{self.problem.number(state.value)}"
            yield answer, rest, self._of_answer(state.value)

    def _backwards(self, style: Style) -> Sequence[Values]:
        problem, results = self.problem, self.tutor.results(self.problem.modulus)
        right = np.zeros(problem.modulus)
        right[int(problem.answer)] = 1.0
        ready, returned, away = right, right, dict.fromkeys(_AWAY, right)
        table: list[Values] = []
        for done in reversed(range(len(problem.operands))):
            stated = self._stated(style, done, ready)
            table.append(Values(ready, returned, away, stated))
            place = SYMBOLS.index(problem.operations[done]), slice(None), problem.operands[done]
            returned = (results[place] * stated).sum(axis=-1)
            away = {operand: results[_MINUS, :, operand] @ returned for operand in _AWAY}
            detour = np.mean([results[_PLUS, :, operand] @ away[operand] for operand in DETOURS], axis=0)
            ready = (1 - style.detour) * returned + style.detour * detour
        return [Values(ready, returned, away), *reversed(table)]

    def _stated(self, style: Style, done: int, ready: ByNumber) -> Float[np.ndarray, "numbers numbers"]:
        """Values after an operation, which may be done again; ``ready`` are those after that."""
        problem, tutor = self.problem, self.tutor
        place = SYMBOLS.index(problem.operations[done]), slice(None), problem.operands[done]
        slipped = tutor.slipped(problem.modulus)[place]
        again = style.check + np.where(slipped, tutor.notice, tutor.doubt)
        redone = tutor.results(problem.modulus)[place] @ ready
        mixed: Float[np.ndarray, "numbers numbers"] = (1 - again) * ready + again * redone[:, None]
        return mixed
