"""Tutors: writers of solutions whose errors are confident, systematic and exactly known.

At each step a tutor first slips, with a small probability: the digit is then uniform over all digits.
Otherwise, if the fact (digit, operation, operand) is misconceived, it writes that fact's one particular
wrong digit with that fact's own strength. Otherwise it is right. What follows an error is computed from it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from jaxtyping import Float, Int

from stepcredit.lab.task import OPERATIONS, SMALLEST_OPERAND, Problem, apply

MISCONCEPTION_SEED: Final = 20241202
"""Fixes which facts are misconceived, how strongly, and towards which digit. It never changes."""

STRENGTH_RANGE: Final = (0.3, 0.8)

SYMBOLS: Final = "".join(OPERATIONS)
"""Operations in the order of the tables' first axis."""


@dataclass(frozen=True, slots=True)
class Tutor:
    """A writer of solutions.

    Attributes:
        misconceived: Share of the facts of each operation that are misconceived. The facts are ranked
            once, so a tutor with a larger share has all misconceptions of one with a smaller share.
        slip: Probability that a step's digit is drawn uniformly.
    """

    name: str
    misconceived: float
    slip: float

    def step_probabilities(self, modulus: int = 10) -> Float[np.ndarray, "operation digit operand result"]:
        """Exact distribution of the digit that a step states, for each fact.

        Returns:
            Probabilities that sum to one over the last axis; the first axis follows :data:`SYMBOLS`,
            the others are indexed by the digit itself, 0 to ``modulus - 1``.
        """
        return _step_probabilities(self, modulus)

    def strengths(self, modulus: int = 10) -> Float[np.ndarray, "operation digit operand"]:
        """For each fact, the probability of its misconception where no slip happens; 0 if it has none."""
        facts = misconceptions(modulus)
        count = round(self.misconceived * facts.rank.shape[1] * (modulus - SMALLEST_OPERAND))
        return np.where(facts.rank < count, facts.strength, 0.0)

    def write(self, problems: Sequence[Problem], *, seed: int | Sequence[int]) -> list[str]:
        """One response to each problem (without end-of-turn), all drawn from ``seed``."""
        return [
            problem.write(row[: len(problem.operands)])
            for problem, row in zip(problems, self.draw(problems, seed=seed).tolist(), strict=True)
        ]

    def draw(
        self, problems: Sequence[Problem], *, seed: int | Sequence[int]
    ) -> Int[np.ndarray, "problems steps"]:
        """The digits that one response to each problem states; rows are padded with -1.

        Raises:
            ValueError: The problems do not share one modulus.
        """
        moduli = {problem.modulus for problem in problems}
        if len(moduli) > 1:
            raise ValueError("problems of several moduli cannot be drawn together")
        longest = max((len(problem.operands) for problem in problems), default=0)
        uniforms = np.random.default_rng(seed).random((len(problems), longest))
        results = np.full((len(problems), longest), -1)
        if not problems:
            return results
        symbols, operands = _padded(problems, longest)
        modulus = moduli.pop()
        digits = np.array([problem.start for problem in problems])
        for step in range(longest):
            here = symbols[:, step] >= 0
            digits[here] = self.next_digits(
                symbols[here, step], digits[here], operands[here, step], uniforms[here, step], modulus
            )
            results[here, step] = digits[here]
        return results

    def next_digits(
        self,
        symbols: Int[np.ndarray, " steps"],
        digits: Int[np.ndarray, " steps"],
        operands: Int[np.ndarray, " steps"],
        uniforms: Float[np.ndarray, " steps"],
        modulus: int = 10,
    ) -> Int[np.ndarray, " steps"]:
        """The digit that each step states, chosen by a uniform number in [0, 1).

        ``symbols`` are places in :data:`SYMBOLS`; ``digits`` and ``operands`` are the facts' other parts.
        """
        rows = _cumulative(self, modulus)[symbols, digits, operands]
        chosen: Int[np.ndarray, " steps"] = (uniforms[:, None] >= rows).sum(axis=-1)
        return chosen


WEAK: Final = Tutor("weak", misconceived=0.4, slip=0.03)
MID: Final = Tutor("mid", misconceived=0.3, slip=0.015)
STRONG: Final = Tutor("strong", misconceived=0.1, slip=0.01)
TUTORS: Final[dict[str, Tutor]] = {tutor.name: tutor for tutor in (WEAK, MID, STRONG)}


@dataclass(frozen=True, slots=True)
class Misconceptions:
    """What could be misconceived about each fact; arrays are indexed [operation, digit, operand].

    Attributes:
        rank: Place of the fact in the fixed order in which facts of its operation become misconceived,
            from 0; a large number where the operand never occurs.
        strength: Probability of the wrong digit where the fact is misconceived.
    """

    rank: Int[np.ndarray, "operation digit operand"]
    strength: Float[np.ndarray, "operation digit operand"]
    wrong: Int[np.ndarray, "operation digit operand"]
    right: Int[np.ndarray, "operation digit operand"]


@cache
def misconceptions(modulus: int = 10) -> Misconceptions:
    """The fixed order, strengths and wrong digits of all facts of a modulus."""
    shape = (len(SYMBOLS), modulus, modulus)
    rank = np.full(shape, np.iinfo(np.int64).max)
    strength, wrong = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    right = np.array(
        [[[apply(s, d, o, modulus) for o in range(modulus)] for d in range(modulus)] for s in SYMBOLS]
    )
    num_operands = modulus - SMALLEST_OPERAND
    for index, symbol in enumerate(SYMBOLS):
        generator = np.random.default_rng([MISCONCEPTION_SEED, modulus, zlib.crc32(symbol.encode())])
        order = generator.permutation(modulus * num_operands).reshape(modulus, num_operands)
        rank[index, :, SMALLEST_OPERAND:] = order
        strength[index] = generator.uniform(*STRENGTH_RANGE, size=shape[1:])
        # One of the other digits, each as likely: a shift by 1 to modulus - 1.
        wrong[index] = (right[index] + generator.integers(1, modulus, size=shape[1:])) % modulus
    for array in (rank, strength, wrong, right):
        array.setflags(write=False)
    return Misconceptions(rank, strength, wrong, right)


@cache
def _step_probabilities(tutor: Tutor, modulus: int) -> Float[np.ndarray, "operation digit operand result"]:
    facts, strength = misconceptions(modulus), tutor.strengths(modulus)
    identity = np.eye(modulus)
    attentive = (1 - strength)[..., None] * identity[facts.right] + strength[..., None] * identity[
        facts.wrong
    ]
    table: Float[np.ndarray, "operation digit operand result"]
    table = tutor.slip / modulus + (1 - tutor.slip) * attentive
    table.setflags(write=False)
    return table


@cache
def _cumulative(tutor: Tutor, modulus: int) -> Float[np.ndarray, "operation digit operand result"]:
    """Cumulative step probabilities without the last (which is one, but for rounding)."""
    cumulative: Float[np.ndarray, "operation digit operand result"]
    cumulative = np.cumsum(_step_probabilities(tutor, modulus), axis=-1)[..., :-1]
    return cumulative


def _padded(
    problems: Sequence[Problem], longest: int
) -> tuple[Int[np.ndarray, "problems steps"], Int[np.ndarray, "problems steps"]]:
    """Operation indices and operands, padded with -1."""
    symbols = np.full((len(problems), longest), -1)
    operands = np.full((len(problems), longest), -1)
    place = {symbol: index for index, symbol in enumerate(SYMBOLS)}
    for row, problem in enumerate(problems):
        symbols[row, : len(problem.operands)] = [place[symbol] for symbol in problem.operations]
        operands[row, : len(problem.operands)] = problem.operands
    return symbols, operands
