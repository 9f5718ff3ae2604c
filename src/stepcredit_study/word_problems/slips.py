"""Ground truth for steps: an expression with its result is right or wrong by arithmetic.

``3 loaves * €9 = €27`` states an equation: numbers with their units, operations between them, and a result.
Whether it holds does not depend on the problem; whether its operands were known does: they stand in the
problem, or an earlier equation states them, or they come from nowhere.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from stepcredit.types import Step

_NUMBER: Final = r"\d+(?:,\d{3})*(?:\.\d+)?"
_UNIT: Final = r"(?:\s+(?!x\s*[$€£(\d])[A-Za-z][A-Za-z'-]*(?:/[A-Za-z]+)?|(?<=\d)/[A-Za-z]+)*"
_TERM: Final = rf"[(\s]*[$€£]?{_NUMBER}%?{_UNIT}\s*\)*"
_EQUATION: Final = re.compile(
    rf"(?<![\w.,%/*+×÷(-])(?<![-+*/×÷]\s)"
    rf"(?P<left>-?{_TERM}(?:\s*(?:[-+*/×÷]|(?<=[\s\d)])x(?=[\s$€£(\d]))\s*{_TERM})+)"
    rf"\s*=\s*(?P<result>-?[$€£]?-?{_NUMBER}%?)(?![\d,]*\d|{_UNIT}\s*(?:[-+*/×÷]\s*[$€£(]?\s*\d|x\s+[$€£(]?\d))"
)
_TOKEN: Final = re.compile(
    rf"(?P<number>{_NUMBER})(?P<percent>%?)|(?P<sign>[-+*×÷()]|/(?!\s*[A-Za-z])|(?<![A-Za-z])x(?![A-Za-z]))"
)
_CURRENCY: Final = re.compile(r"[$€£]")
_OPERATIONS: Final[dict[str, Callable[[Fraction, Fraction], Fraction]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "x": operator.mul,
    "×": operator.mul,
    "/": operator.truediv,
    "÷": operator.truediv,
}
_WORDS: Final = {
    word: Fraction(value)
    for value, words in enumerate(
        (
            "zero no none",
            "one once single",
            "two twice double both pair half couple",
            "three thrice triple third thirds",
            "four quarter quarters quadruple",
            "five fifth fifths",
            "six sixth",
            "seven week weekly",
            "eight eighth",
            "nine ninth",
            "ten tenth",
            "eleven",
            "twelve dozen year months",
        )
    )
    for word in words.split()
}
"""Numbers that a problem spells or implies."""
COMMON: Final = frozenset(Fraction(number) for number in (1, 2, 7, 12, 24, 60, 100))
"""Operands that need no source: halves and pairs, days, months, hours, minutes, per cent."""


@dataclass(frozen=True, slots=True)
class Equation:
    """One stated equation.

    Attributes:
        operands: The numbers on the left.
        stated: The result as written.
        is_right: Whether what the left side is worth, rounded to as many decimals as are written, is the
            result. A quotient that is not whole may be rounded to a whole number, up or down.
    """

    operands: tuple[Fraction, ...]
    stated: Fraction
    is_right: bool


@dataclass(frozen=True, slots=True)
class StepTruth:
    """What arithmetic says of one step.

    Attributes:
        verdict: ``right`` and ``slip`` where it states equations, and all of them hold or one does not;
            ``none`` where it states none.
        num_foreign: Operands of its equations that neither the problem nor an earlier equation has.
        num_operands: Operands in all.
    """

    verdict: Literal["right", "slip", "none"]
    num_foreign: int
    num_operands: int


def equations(text: str) -> list[Equation]:
    """The equations of a text, in order; a side that is still to be worked out is no result."""
    stated = []
    for match in _EQUATION.finditer(text):
        value, operands, signs = _evaluate(match["left"])
        written = _CURRENCY.sub("", match["result"])
        may_round = "/" in signs or "÷" in signs
        is_right = value is not None and _is_result(value, written, may_round=may_round)
        stated.append(Equation(operands, _number(written), is_right))
    return stated


def step_truths(problem: str, steps: Sequence[Step]) -> list[StepTruth]:
    """What arithmetic says of each step of a response to ``problem``."""
    known = numbers_of(problem) | COMMON
    truths = []
    for step in steps:
        stated = equations(step.text)
        foreign = 0
        for equation in stated:
            foreign += sum(operand not in known for operand in equation.operands)
            known |= {equation.stated, *equation.operands}
        verdict: Literal["right", "slip", "none"] = "none"
        if stated:
            verdict = "right" if all(equation.is_right for equation in stated) else "slip"
        truths.append(StepTruth(verdict, foreign, sum(len(equation.operands) for equation in stated)))
    return truths


def first_slip(truths: Sequence[StepTruth]) -> int:
    """Index of the first step with a slip; -1 where there is none."""
    return next((index for index, truth in enumerate(truths) if truth.verdict == "slip"), -1)


def numbers_of(text: str) -> frozenset[Fraction]:
    """Numbers that a text states in digits or words."""
    digits = {_number(number) for number in re.findall(_NUMBER, text)}
    words = {_WORDS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in _WORDS}
    return frozenset(digits | words)


def _number(text: str) -> Fraction:
    plain = text.replace(",", "")
    return Fraction(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)


def _is_result(value: Fraction, written: str, *, may_round: bool) -> bool:
    stated = _number(written)
    decimals = len(written.removesuffix("%").partition(".")[2])
    if decimals == 0:
        return stated == value or (may_round and value.denominator > 1 and abs(stated - value) < 1)
    scale = 10**decimals * (100 if written.endswith("%") else 1)
    return bool(abs(stated - value) * scale * 2 <= 1)


def _evaluate(left: str) -> tuple[Fraction | None, tuple[Fraction, ...], str]:
    """Value (``None`` divides by zero), numbers and signs of a left side; products first, and brackets."""
    tokens: list[Fraction | str] = [
        _number(match["number"] + match["percent"]) if match["number"] else match["sign"]
        for match in _TOKEN.finditer(left)
    ]
    operands = tuple(token for token in tokens if isinstance(token, Fraction))
    signs = "".join(token for token in tokens if isinstance(token, str))
    try:
        return _Reader(tokens).sum(), operands, signs
    except ZeroDivisionError:
        return None, operands, signs


class _Reader:
    """Reads tokens from left to right; a bracket that is not closed ends with the text."""

    def __init__(self, tokens: Sequence[Fraction | str]) -> None:
        self._tokens, self._place = tokens, 0

    def sum(self) -> Fraction:
        return self._chain("+-", self._product)

    def _product(self) -> Fraction:
        return self._chain("*x×/÷", self._factor)

    def _chain(self, signs: str, read: Callable[[], Fraction]) -> Fraction:
        value = read()
        while isinstance(sign := self._next(), str) and sign in signs:
            self._place += 1
            value = _OPERATIONS[sign](value, read())
        return value

    def _factor(self) -> Fraction:
        token = self._next()
        self._place += 1
        if isinstance(token, Fraction):
            return token
        if token == "-":
            return -self._factor()
        if token == "(":
            value = self.sum()
            self._place += self._next() == ")"
            return value
        return self._factor() if token is not None else Fraction(0)

    def _next(self) -> Fraction | str | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None
