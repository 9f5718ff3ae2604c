"""What an answer can be, once it has been read as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from stepcredit.grading.numbers import Number
from stepcredit.grading.units import Unit


@dataclass(frozen=True, slots=True)
class Unread:
    """Text that no reader took as a whole: it equals nothing but the same text."""

    text: str


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in words, without digits and formulas, in lower case."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter of a multiple-choice question, with the value that stands behind it, if any: ``(B) 12``."""

    letter: str
    value: Answer | None


@dataclass(frozen=True, slots=True)
class Clock:
    """``12:30``, with or without a half of the day; where that is unclear also the ratio 12 to 30.

    Attributes:
        minutes: Minutes since midnight (seconds are fractions).
        half: ``am``, ``pm`` or ``""``.
    """

    minutes: float
    half: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """``2:3``, ``1:2:3``."""

    terms: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Formula:
    """An expression that :func:`~stepcredit.grading.formulas.parsed` has read.

    Attributes:
        expression: A sympy expression, matrix or logical value.
    """

    expression: Any


@dataclass(frozen=True, slots=True)
class Amount:
    """A number or formula with a unit.

    Attributes:
        unit: The unit; ``"%"`` is a percentage, ``"degree"`` an angle.
        product: What the text means where the unit's letters are variables, of a doubtful unit.
    """

    value: Answer
    unit: Unit | Literal["%", "degree"]
    product: Formula | None = None


@dataclass(frozen=True, slots=True)
class Based:
    """A number in a positional system with its base: ``101_2``."""

    digits: str
    base: str


@dataclass(frozen=True, slots=True)
class Dots:
    """``...`` between the terms of a sequence."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """Several answers.

    Attributes:
        kind: ``list`` (``1, 2``), ``set`` (in braces), or ``row`` (a point or an interval).
        brackets: The two brackets of a row.
    """

    kind: Literal["list", "set", "row"]
    items: tuple[Answer, ...]
    brackets: str = ""

    @property
    def has_dots(self) -> bool:
        """Whether terms are left out."""
        return any(isinstance(item, Dots) for item in self.items)


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of a matrix or column vector."""

    rows: tuple[tuple[Answer, ...], ...]


@dataclass(frozen=True, slots=True)
class Region:
    """A set of numbers as sympy's: an interval, a union, a solution of inequalities."""

    points: Any


@dataclass(frozen=True, slots=True)
class Relation:
    """An equation or inequality that is no mere assignment.

    Attributes:
        operator: ``=``, ``<``, ``<=`` or ``!=``; greater ones are turned round.
        difference: Left side minus right side, a sympy expression.
        value: The right side, where the relation is an equation.
    """

    operator: str
    difference: Any
    value: Answer | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """``x = 5``, ``f(x) = 2x``, ``Area = 12``.

    Attributes:
        name: Left side.
        value: Right side.
        relation: The same as a relation, where both sides are formulas.
    """

    name: str
    value: Answer
    relation: Relation | None


Answer = (
    Unread
    | Words
    | Choice
    | Clock
    | Ratio
    | Number
    | Formula
    | Amount
    | Based
    | Dots
    | Sequence
    | Matrix
    | Region
    | Relation
    | Assignment
)


def parts(answer: Answer) -> Iterator[Answer]:
    """An answer and everything inside it."""
    yield answer
    inner: tuple[Answer | None, ...] = ()
    match answer:
        case Sequence():
            inner = answer.items
        case Ratio():
            inner = answer.terms
        case Matrix():
            inner = tuple(entry for row in answer.rows for entry in row)
        case Amount() | Choice() | Assignment() | Relation():
            inner = (answer.value,)
    for part in inner:
        if part is not None:
            yield from parts(part)


def unread_text(answer: Answer) -> str | None:
    """The first part that was not read, ``None`` if all was."""
    return next((part.text for part in parts(answer) if isinstance(part, Unread)), None)
