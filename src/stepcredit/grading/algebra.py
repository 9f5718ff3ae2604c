"""The ``math`` grader's work, in worker processes only: an expression may take for ever, or all memory."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from stepcredit.grading.answers import (
    Amount,
    Answer,
    Assignment,
    Based,
    Choice,
    Clock,
    Dots,
    Formula,
    Matrix,
    Ratio,
    Region,
    Relation,
    Sequence,
    Unread,
    Words,
    unread_text,
)
from stepcredit.grading.equality import same_answer
from stepcredit.grading.extraction import stated_answer
from stepcredit.grading.formulas import FAILURES, constant
from stepcredit.grading.notation import normalized
from stepcredit.grading.numbers import Number, number_text
from stepcredit.grading.reading import read
from stepcredit.grading.units import Unit

_LONGEST = 2000  # characters; answers beyond are compared as text
_MOST_BITS = 400  # numbers with more keep the form in which they were written


def load() -> Callable[..., Any]:
    """Import what parses and return the workers' function."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    import latex2sympy2_extended  # noqa: F401  (so that the first job's time is its own)
    import math_verify  # noqa: F401

    return _serve


def _serve(task: str, *arguments: Any) -> Any:
    tasks: dict[str, Callable[..., Any]] = {"judge": judge, "find": find_equal}
    return tasks[task](*arguments)


def judge(prediction: str, answer: str) -> tuple[bool, str, str | None]:
    """Compare a prediction with the reference.

    Returns:
        Whether they are equal; the prediction's canonical form (the reference's if they are); and the part
        of either that could not be read, where they are not equal and one has such a part.
    """
    answer = reference_of(answer)
    if equal(answer, prediction):
        return True, canonical(answer), None
    unread = unread_text(read(prediction[:_LONGEST])) or unread_text(read(answer[:_LONGEST]))
    return False, canonical(prediction), unread


def reference_of(answer: str) -> str:
    r"""The reference itself, or what a whole solution (``... #### 7``) marks as its answer."""
    if "####" in answer or "\\boxed" in answer or "\\fbox" in answer:
        return stated_answer(answer) or answer
    return answer


def find_equal(text: str, candidates: list[str]) -> int:
    """Index of the first candidate that equals the text, -1 if there is none."""
    return next((index for index, other in enumerate(candidates) if equal(other, text)), -1)


def equal(answer: str, prediction: str) -> bool:
    """Whether the same is said: the same text, or answers that were read whole and have the same meaning."""
    if _text(answer) == _text(prediction):
        return True
    if max(len(answer), len(prediction)) > _LONGEST:
        return False
    first, second = read(answer), read(prediction)
    if unread_text(first) is not None or unread_text(second) is not None:
        return False
    return same_answer(first, second)


@lru_cache(maxsize=4096)
def _text(answer: str) -> str:
    text = normalized(answer[: 2 * _LONGEST])
    # R and r are two variables; words and the letters of choices have no case.
    text = re.sub(r"(?<!\\)[A-Za-z]{2,}|^[A-J]$", lambda word: word[0].lower(), text)
    return re.sub(r"\s*([^\w\s.])\s*", r"\1", text)


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """One text for all answers of the same value, as far as cheap rewriting goes."""
    if len(text) > _LONGEST:
        return text
    try:
        return _form(read(text))
    except FAILURES:
        return _text(text)


def _form(answer: Answer) -> str:
    match answer:
        case Number():
            return _number_form(answer)
        case Words() | Unread():
            return answer.text
        case Assignment():
            return _form(answer.value)
        case Choice():
            return answer.letter if answer.value is None else f"({answer.letter}) {_form(answer.value)}"
        case Clock():
            hours, minutes = divmod(answer.minutes, 60)
            return f"{hours:.0f}:{minutes:02.0f}"
        case Ratio():
            return ":".join(map(_form, answer.terms))
        case Amount():
            return _form(answer.value) + _unit_form(answer.unit)
        case Based():
            return f"{answer.digits}_{{{answer.base}}}"
        case Dots():
            return r"\ldots"
        case Matrix():
            rows = r"\\".join("&".join(map(_form, row)) for row in answer.rows)
            return rf"\begin{{pmatrix}}{rows}\end{{pmatrix}}"
        case Sequence():
            return _sequence_form(answer)
        case Region():
            return _latex(answer.points)
        case Relation():
            return f"{_latex(answer.difference)} {answer.operator} 0"
        case Formula():
            return _expression_form(answer.expression)


def _sequence_form(answer: Sequence) -> str:
    forms = list(map(_form, answer.items))
    if answer.kind == "row":
        return f"{answer.brackets[0]}{', '.join(forms)}{answer.brackets[1]}"
    return ", ".join(forms if answer.has_dots else sorted(forms))


def _unit_form(unit: Unit | str) -> str:
    return f" {unit.text}" if isinstance(unit, Unit) else {"%": r"\%"}.get(unit, r"^\circ")


def _number_form(number: Number) -> str:
    if max(number.value.numerator.bit_length(), number.value.denominator.bit_length()) > _MOST_BITS:
        raise ValueError("too long to be written out")
    return number_text(number.value)


def _expression_form(expression: Any) -> str:
    import sympy  # type: ignore[import-untyped]

    value = constant(expression)
    if value is not None and not value.irrational:
        return _number_form(value)
    expression = expression.doit()
    if isinstance(expression, sympy.Expr) and value is None:
        expression = sympy.cancel(sympy.expand(expression))
    return _latex(expression)


def _latex(expression: Any) -> str:
    import sympy

    return str(sympy.latex(expression))
