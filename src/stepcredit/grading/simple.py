"""Graders that need no worker processes: ``numeric``, ``exact`` and ``choice``."""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from stepcredit.errors import DataError, UserError
from stepcredit.grading.base import DIFFERS, MATCH, NO_ANSWER, RULES, Grade, Grader, GradingItem
from stepcredit.grading.extraction import compile_answer_pattern, final_answer, find_answer, stated_answer
from stepcredit.grading.notation import normalized
from stepcredit.grading.numbers import counted_number, number_text, number_value


class _TextGrader(Grader):
    """Finds the final answer, then compares it with the reference in this process."""

    def __init__(self, *, answer_pattern: str | None = None) -> None:
        self._answer_pattern = answer_pattern
        self._pattern = compile_answer_pattern(answer_pattern)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The pattern, and the version of the rules."""
        return {"answer_pattern": self._answer_pattern, "rules": RULES}

    def grade_all(self, items: Iterable[GradingItem]) -> Iterator[Grade]:
        """Grade in input order."""
        for item in items:
            prediction = find_answer(item.response, self._pattern, self._find)
            yield (
                Grade(False, None, NO_ANSWER)
                if prediction is None
                else self._compare(prediction, item.answer)
            )

    @abstractmethod
    def _find(self, response: str) -> str | None: ...

    @abstractmethod
    def _compare(self, prediction: str, answer: str) -> Grade: ...


class NumericGrader(_TextGrader):
    """Equality of numbers: decimals, fractions, percentages, ``1.8 billion``, with or without a unit.

    Args:
        answer_pattern: As for :class:`~stepcredit.grading.mathematics.MathGrader`.
        tolerance: Largest difference from the reference, as a share of it, that still counts as equal.
    """

    name = "numeric"

    def __init__(self, *, answer_pattern: str | None = None, tolerance: float = 1e-6) -> None:
        super().__init__(answer_pattern=answer_pattern)
        if not 0.0 <= tolerance < 1.0:
            raise UserError(f"{tolerance} is not in [0, 1)", where="--tolerance")
        self._tolerance = tolerance

    @property
    def settings(self) -> Mapping[str, Any]:
        """Pattern, rules and tolerance."""
        return {**super().settings, "tolerance": self._tolerance}

    def _find(self, response: str) -> str | None:
        return final_answer(response)

    def _compare(self, prediction: str, answer: str) -> Grade:
        expected = _number_in(answer)
        if expected is None:
            raise DataError(f"the reference answer {answer!r} is not a number", hint="use --grader math")
        value = _number_in(prediction, only=True)
        if value is None:
            return Grade(False, None, NO_ANSWER)
        # 50% is 0.5, and 50 as well where the other side has no sign.
        scale = Fraction(100) ** (_is_percentage(prediction) - _is_percentage(answer))
        margin = Fraction(self._tolerance) * abs(expected)
        if abs(value - expected) <= margin or abs(value * scale - expected) <= margin:
            return Grade(True, number_text(expected), MATCH)
        return Grade(False, number_text(value), DIFFERS)


_EQUALS = re.compile(r"=|\\approx(?![A-Za-z])")
_A_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


def _is_percentage(text: str) -> bool:
    return normalized(text).endswith(r"\%")


def _number_in(text: str, *, only: bool = False) -> Fraction | None:
    """The value of the whole text, or of the last number in it; with ``only``, if it is the only one.

    A text that states its answer in words, or ends in an equation, is searched behind that only.
    """
    value = number_value(text)
    if value is None and (number := counted_number(text)) is not None:
        return number.value
    if value is None and only and stated_answer(text) is None:
        text = _EQUALS.split(text)[-1].strip()
        if len(_A_NUMBER.findall(text)) > 1:
            return number_value(text)  # (5, 6) is neither
    if value is None and (inner := final_answer(text)) is not None:
        value = number_value(inner)
    return value


class ExactGrader(_TextGrader):
    """Equality of text, but for the space around it and Unicode composition.

    Without a pattern the answer is what the response marks as its answer, or its last line.
    """

    name = "exact"

    def _find(self, response: str) -> str | None:
        stated = stated_answer(response)
        lines = response.strip().splitlines() if stated is None else []
        return stated if stated is not None else (lines[-1].strip() if lines else None)

    def _compare(self, prediction: str, answer: str) -> Grade:
        prediction, answer = (unicodedata.normalize("NFC", text.strip()) for text in (prediction, answer))
        correct = prediction == answer
        return Grade(correct, prediction, MATCH if correct else DIFFERS)


_CHOICE = re.compile(
    r"\\text\s*\{\s*\(?([A-Z])\)?\s*\}|\(([A-Z])\)"
    r"|(?<![A-Za-z\\])(?!I\s(?:think|believe|guess|would|will|am|choose|chose|say|get|got|have|find|found)\b)"
    r"([A-Z])(?![A-Za-z'’])"
)
_NEGATED = re.compile(
    r"\b(?:not|never|neither|nor|than)\s+(?:(?:option|choice|answer)\s+)?\(?$", re.IGNORECASE
)
_ANOTHER = re.compile(
    r"\s*[)}\]*]*\s*(?:[,/&+]|,?\s*(?:and|or)\b)\s*(?:\\text\s*\{\s*)?[*(\[]*(?:(?:option|choice)\s+\(?)?([A-Z])\)?"
    r"(?=[*\]}$\s]*(?:$|[.,;/&+]|(?:and|or)\b))"
)
_SMALL_CHOICE = re.compile(
    r"(?:(?i:option|choice)\s+)?(?:\\text\s*\{\s*)?(?:\(([a-z])\)|([a-z])(?=[):}]|\.(?!\w)|$))"
)
_PARENTHESISED = re.compile(r"\(([A-Z])\)")
_REFERENCE = re.compile(r"\(?([A-Za-z])\)?[.):]?(?:\s.*)?", re.DOTALL)


class ChoiceGrader(_TextGrader):
    """The letter of a multiple-choice question: ``(B)``, ``B.``, ``The answer is B: because ...``."""

    name = "choice"

    def _find(self, response: str) -> str | None:
        stated = stated_answer(response)
        if stated is not None and (letter := _first_letter(stated)) is not None:
            return letter
        lines = response.strip().splitlines()
        if lines and len(lines[-1].strip(" \t.*()")) == 1 and (letter := _first_letter(lines[-1])):
            return letter
        in_parentheses = _PARENTHESISED.findall(response)
        return in_parentheses[-1] if in_parentheses else None

    def _compare(self, prediction: str, answer: str) -> Grade:
        reference = _REFERENCE.fullmatch(answer.strip())
        if reference is None:
            raise DataError(
                f"the reference answer {answer!r} does not start with a choice's letter",
                hint="use --grader exact or math",
            )
        letter = _first_letter(prediction) or prediction.strip().upper()
        correct = letter == reference[1].upper()
        return Grade(correct, letter, MATCH if correct else DIFFERS)


def _first_letter(text: str) -> str | None:
    """The first letter that the text does not deny, with those that it joins: ``A, C`` is no choice."""
    match = _SMALL_CHOICE.match(text) or next(
        (found for found in _CHOICE.finditer(text) if not _NEGATED.search(text[: found.start()])), None
    )
    if match is None:
        return None
    letters, end = [next(group for group in match.groups() if group).upper()], match.end()
    while another := _ANOTHER.match(text, end):
        letters.append(another[1])
        end = another.end()
    return ", ".join(dict.fromkeys(letters))
