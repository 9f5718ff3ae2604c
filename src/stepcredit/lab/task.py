"""Last-digit arithmetic: the lab's problems and their right solutions.

A problem such as ``7*8+5-3=`` starts at a digit and applies operations from left to right, each modulo 10.
Its solution writes one step a line and ends with the answer::

    7*8=6
    6+5=1
    1-3=8
    #8
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from stepcredit.conversations import content_text
from stepcredit.errors import DataError, UserError
from stepcredit.steps import StepRule
from stepcredit.types import Prompt, PromptText

OPERATIONS: Final[dict[str, Callable[[int, int], int]]] = {
    "+": lambda digit, operand: digit + operand,
    "-": lambda digit, operand: digit - operand,
    "*": lambda digit, operand: digit * operand,
    ">": max,
    "<": min,
}
"""Symbol to operation, before the remainder is taken; ``>`` keeps the larger digit, ``<`` the smaller."""

SMALLEST_OPERAND: Final = 2
ANSWER_MARK: Final = "#"
ANSWER_PATTERN: Final = rf"^{ANSWER_MARK}([0-9])$"
"""Finds the final answer of a response (for ``grade``)."""
STEP_RULE: Final = StepRule("newline")
"""How the labs' responses are cut into steps."""

SPLIT_SHARES: Final[dict[str, int]] = {"policy": 40, "train": 30, "development": 10, "test": 20}
"""Share of all problems, in per cent, that each split draws from; no problem is in two splits."""

LARGEST_OPERAND: Final = 9
_PROBLEM = re.compile(r"(?:([0-9]+):)?([0-9]+)((?:[-+*<>][0-9])+)=")


def _is_modulus(modulus: int) -> bool:
    return SMALLEST_OPERAND < modulus <= 10 or (modulus % 10 == 0 and 10 < modulus < 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A family of problems.

    Attributes:
        name: Part of the prompt ids, except for the standard domain.
        operations: Symbols to choose from, keys of :data:`OPERATIONS`.
        modulus: Results are below it: 3 to 10, of one digit, or a multiple of 10 up to 990, of two or
            three digits. Where it is not 10 the problem says so: ``5:3*4+2=``.
    """

    name: str = "standard"
    operations: str = "+-*"
    modulus: int = 10
    fewest: int = 4
    most: int = 7

    def __post_init__(self) -> None:
        unknown = sorted(set(self.operations) - set(OPERATIONS))
        if unknown or not self.operations or len(set(self.operations)) != len(self.operations):
            raise UserError(
                f"operations {self.operations!r} must be different ones of {''.join(OPERATIONS)!r}",
                where=f"lab domain {self.name!r}",
            )
        if not _is_modulus(self.modulus):
            raise UserError(
                f"modulus {self.modulus} is not in 3..10, nor a multiple of 10 below 1000",
                where=f"lab domain {self.name!r}",
            )
        if not 1 <= self.fewest <= self.most:
            raise UserError(
                f"numbers of operations {self.fewest}..{self.most} are not a range from 1 up",
                where=f"lab domain {self.name!r}",
            )


STANDARD: Final = Domain()
"""The problems that everything is measured on."""

DOMAINS: Final[dict[str, Domain]] = {
    domain.name: domain
    for domain in (STANDARD, Domain(name="comparisons", operations="<>"), Domain(name="base5", modulus=5))
}
"""The standard problems, and two other kinds that the policies know as well."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: ``start``, then operation after operation.

    Attributes:
        start: First number, below ``modulus``.
        operations: One symbol an operation.
        operands: As many digits, below ``modulus``.
        modulus: All results are below it.
    """

    start: int
    operations: str
    operands: tuple[int, ...]
    modulus: int = 10

    @property
    def text(self) -> str:
        """What the policy is asked."""
        pairs = zip(self.operations, self.operands, strict=True)
        marker = "" if self.modulus == 10 else f"{self.modulus}:"
        steps = "".join(f"{symbol}{operand}" for symbol, operand in pairs)
        return f"{marker}{self.number(self.start)}{steps}="

    def number(self, value: int) -> str:
        """How a result is written: one digit, or two to three where the modulus is above 10."""
        return str(value) if self.modulus <= 10 else f"{value:02d}"

    @property
    def results(self) -> tuple[int, ...]:
        """The right number after each operation."""
        digits, digit = [], self.start
        for symbol, operand in zip(self.operations, self.operands, strict=True):
            digit = apply(symbol, digit, operand, self.modulus)
            digits.append(digit)
        return tuple(digits)

    @property
    def answer(self) -> str:
        """The last right number."""
        return self.number(self.results[-1])

    @property
    def solution(self) -> str:
        """The right response, without end-of-turn."""
        return self.write(self.results)

    def write(self, results: tuple[int, ...] | list[int]) -> str:
        """The response that states ``results`` (one number an operation) and carries them forward."""
        lines, value = [], self.start
        for symbol, operand, result in zip(self.operations, self.operands, results, strict=True):
            lines.append(f"{self.number(value)}{symbol}{operand}={self.number(result)}")
            value = result
        return "\n".join([*lines, f"{ANSWER_MARK}{self.number(value)}"])


def apply(symbol: str, digit: int, operand: int, modulus: int = 10) -> int:
    """The right result of one operation, a number below ``modulus``."""
    return OPERATIONS[symbol](digit, operand) % modulus


def parse_problem(prompt: PromptText) -> Problem:
    """Read a problem from a prompt: its text, or a conversation whose last turn it is.

    Raises:
        DataError: The text is not a problem of the lab.
    """
    text = prompt if isinstance(prompt, str) else content_text(prompt[-1])
    match = _PROBLEM.fullmatch(text)
    if match is None:
        raise DataError(
            f"{text!r} is not a problem of the lab",
            hint="write one such as '7*8+5-3=', with single digits, or '130:63*7+5-8='",
        )
    marker, start, rest = match.groups()
    problem = Problem(int(start), rest[::2], tuple(int(digit) for digit in rest[1::2]), int(marker or 10))
    if not _is_modulus(problem.modulus) or max(problem.start, *problem.operands) >= problem.modulus:
        raise DataError(f"{text!r} has a digit that base {problem.modulus} does not have")
    return problem


def draw_problems(
    split: str, *, seed: int, count: int, domain: Domain = STANDARD, distinct: bool = True
) -> list[Problem]:
    """Draw problems of a split.

    Every problem belongs to exactly one split (by a checksum of its text), so no seed lets one split
    leak into another. The first ``n`` problems are the same whatever ``count`` is.

    Args:
        split: A key of :data:`SPLIT_SHARES`.
        seed: Another seed gives other problems of the same split.
        distinct: No problem twice; off for a stream that is larger than memory of it is worth.

    Raises:
        UserError: Unknown split, or the domain has too few problems.
    """
    if split not in SPLIT_SHARES:
        raise UserError(
            f"unknown split {split!r}", where="lab problems", hint=f"use {', '.join(SPLIT_SHARES)}"
        )
    problems: list[Problem] = []
    seen: set[Problem] = set()
    fruitless = 0
    for problem in _stream(split, seed, domain):
        if len(problems) == count:
            break
        if problem in seen or split_of(problem) != split:
            fruitless += 1
            if fruitless > 10_000:
                raise UserError(
                    f"found only {len(problems)} of {count} different problems",
                    where=f"lab split {split!r}, domain {domain.name!r}",
                    hint="ask for fewer, or allow more operations",
                )
            continue
        fruitless = 0
        problems.append(problem)
        if distinct:
            seen.add(problem)
    return problems


def make_prompts(split: str, *, seed: int, count: int, domain: Domain = STANDARD) -> list[Prompt]:
    """Draw problems as prompts with reference answers and ids such as ``lab-test-000012``."""
    infix = split if domain == STANDARD else f"{split}-{domain.name}"
    problems = draw_problems(split, seed=seed, count=count, domain=domain)
    return [
        Prompt(id=f"lab-{infix}-{index:06d}", prompt=problem.text, answer=problem.answer)
        for index, problem in enumerate(problems)
    ]


def split_of(problem: Problem) -> str:
    """The split that a problem belongs to."""
    bucket = zlib.crc32(b"lab split " + problem.text.encode()) % sum(SPLIT_SHARES.values())
    for split, share in SPLIT_SHARES.items():
        bucket -= share
        if bucket < 0:
            return split
    raise AssertionError("shares cover every bucket")


def _stream(split: str, seed: int, domain: Domain) -> Iterator[Problem]:
    """Independent problems of the domain, without end; each takes a fixed number of random draws."""
    name = f"{split}/{domain.operations}/{domain.modulus}/{domain.fewest}-{domain.most}"
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    block = 1024
    while True:
        lengths = generator.integers(domain.fewest, domain.most + 1, size=block)
        starts = generator.integers(0, domain.modulus, size=block)
        symbols = generator.integers(0, len(domain.operations), size=(block, domain.most))
        largest = min(domain.modulus - 1, LARGEST_OPERAND)
        operands = generator.integers(SMALLEST_OPERAND, largest + 1, size=(block, domain.most))
        for length, start, row, numbers in zip(
            lengths.tolist(), starts.tolist(), symbols.tolist(), operands.tolist(), strict=True
        ):
            chosen = "".join(domain.operations[index] for index in row[:length])
            yield Problem(start, chosen, tuple(numbers[:length]), domain.modulus)
