"""What a grader is: a response and a reference answer in, a verdict out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

MATCH, DIFFERS, NO_ANSWER, UNREAD = "match", "differs", "no-answer", "unread"
TIMEOUT, CRASHED = "timeout", "crashed"
RULES = 4
"""Goes up with the rules of finding and comparing, so that what earlier ones judged is not taken for done.

Raise it with every change of :mod:`~stepcredit.grading` by which some text could get another verdict."""


@dataclass(frozen=True, slots=True)
class GradingItem:
    """A response to grade.

    Attributes:
        answer: Reference answer (for code: the tests).
        group: Responses with the same group answer the same prompt.
        extras: Other fields of the response's row, for graders that ask more of it than the answer.
    """

    response: str
    answer: str
    group: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict.

    Attributes:
        prediction: The answer found in the response, in a form that equivalent answers to the same
            prompt share; ``None`` if there is none.
        reason: ``match``, ``differs``, ``no-answer``, ``unread`` (prediction or reference could not be
            read as a whole), ``timeout`` or ``crashed``; graders may say more after a colon.
    """

    correct: bool
    prediction: str | None
    reason: str


class Grader(ABC):
    """Decides whether responses are right. Use as a context manager where there are worker processes."""

    name: str
    row_fields: tuple[str, ...] = ()
    """Fields of a response's row that it reads besides the answer, in a :class:`GradingItem`'s ``extras``."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Everything that the verdicts depend on, JSON-able, for the manifest."""

    @abstractmethod
    def grade_all(self, items: Iterable[GradingItem]) -> Iterator[Grade]:
        """Grade in input order, with a bounded number of items in memory.

        Raises:
            DataError: A reference answer is not one that this grader can use.
        """

    def grade(self, response: str, answer: str, extras: Mapping[str, Any] = MappingProxyType({})) -> Grade:
        """Grade one response, whose row has these other fields."""
        return next(iter(self.grade_all([GradingItem(response, answer, extras=extras)])))

    def remember(self, group: str, prediction: str) -> None:  # noqa: B027  (most graders need no memory)
        """Take note of a wrong prediction's form from an earlier run of the same work."""

    def close(self) -> None:  # noqa: B027  (graders without workers have nothing to close)
        """End worker processes, if there are any; they start again when needed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
