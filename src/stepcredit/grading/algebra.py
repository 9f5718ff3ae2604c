"""Mathematical equality by math-verify. Runs in worker processes only: it may hang, or eat all memory."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any
from zlib import crc32

from stepcredit.grading.numbers import number_text, number_value

_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_IMAGINARY = re.compile(r"(?<=\d)i\b")  # math-verify takes "2 i" for imaginary, "2i" for a symbol
_WORD = re.compile(r"[A-Za-z]{4,}")
_SHORT_WORDS = frozenset({"yes", "no", "odd", "even", "true", "none", "all", "both", "one", "two", "ten"})
_LONGEST = 2000  # characters; answers beyond are compared as text


def load() -> Callable[..., Any]:
    """Import math-verify and return the workers' function."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    import math_verify  # noqa: F401  (so that the first job's time is its own)

    return _serve


def _serve(task: str, *arguments: Any) -> Any:
    tasks: dict[str, Callable[..., Any]] = {"judge": judge, "find": find_equal}
    return tasks[task](*arguments)


def judge(prediction: str, answer: str) -> tuple[bool, str]:
    """Whether a prediction equals the reference, and its canonical form (the reference's if it does)."""
    if equal(answer, prediction):
        return True, canonical(answer)
    return False, canonical(prediction)


def find_equal(text: str, candidates: list[str]) -> int:
    """Index of the first candidate that equals the text, -1 if there is none."""
    return next((index for index, other in enumerate(candidates) if equal(other, text)), -1)


def equal(answer: str, prediction: str) -> bool:
    """Mathematical equality; answers in words must be the same words."""
    if normalized_words(answer) == normalized_words(prediction):
        return True
    if is_words(answer) or is_words(prediction) or max(len(answer), len(prediction)) > _LONGEST:
        return False
    exact_answer, exact_prediction = number_value(answer), number_value(prediction)
    if exact_answer is not None and exact_answer == exact_prediction:
        return True
    if _clearly_different(answer, prediction):
        return False
    gold, target = _parsed(answer), _parsed(prediction)
    return bool(gold and target) and _verified(gold, target)


def _clearly_different(first: str, second: str) -> bool:
    """Whether expressions differ at some point: math-verify would take long to say so."""
    values, others = _values_at_points(first), _values_at_points(second)
    if values is None or others is None:
        return False
    return any(abs(a - b) > 1e-4 * (1 + abs(a)) for a, b in zip(values, others, strict=True))


@lru_cache(maxsize=4096)
def _values_at_points(text: str) -> tuple[complex, ...] | None:
    """An expression's values at fixed points, the same for symbols of the same name; ``None`` without any.

    Percentages have none: to math-verify they equal both the share and the bare number. Nor have lone
    symbols, whose names it compares with some tolerance.
    """
    import sympy  # type: ignore[import-untyped]

    expression = next((item for item in _parsed(text) if not isinstance(item, str)), None)
    if (
        not isinstance(expression, sympy.Expr)
        or expression.has(sympy.UnevaluatedExpr)
        or expression.is_Symbol
    ):
        return None
    values = []
    for start in (0.3819, 1.6131):
        point = {symbol: start + crc32(str(symbol).encode()) / 2**32 for symbol in expression.free_symbols}
        try:
            values.append(complex(expression.doit().evalf(15, subs=point)))
        except (ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError):
            return None
    return tuple(values)


def _verified(gold: tuple[Any, ...], target: tuple[Any, ...]) -> bool:
    from math_verify import verify

    # Lists are alternatives to math-verify; the time limit is the pool's.
    return bool(verify(list(gold), list(target), allow_set_relation_comp=True, timeout_seconds=None))


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """One text for all answers of the same value, as far as cheap rewriting goes."""
    value = number_value(text)
    if value is not None:
        return number_text(value)
    if is_words(text) or len(text) > _LONGEST:
        return normalized_words(text)
    parsed = _parsed(text)
    expression = next((item for item in parsed if not isinstance(item, str)), None)
    if expression is None:
        return normalized_words(text)
    try:
        return _canonical_expression(expression)
    except (ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError):
        return normalized_words(text)


def _canonical_expression(expression: Any) -> str:
    import sympy
    from sympy.core.relational import Equality  # type: ignore[import-untyped]

    if isinstance(expression, Equality) and expression.lhs.is_Symbol:
        expression = expression.rhs
    expression = expression.doit()
    if isinstance(expression, sympy.Expr):
        expression = sympy.cancel(sympy.expand(expression))
        if expression.is_Rational:
            return number_text(Fraction(int(expression.p), int(expression.q)))
    return str(sympy.latex(expression))


@lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple[Any, ...]:
    from math_verify import parse

    text = _IMAGINARY.sub(" i", text)
    forms = [text] if "$" in text else [f"${text}$", text]
    if _WORD.search(_COMMAND.sub(" ", text)):
        forms.reverse()
    for form in forms:
        found = parse(form, fallback_mode="no_fallback", parsing_timeout=None)
        if found:
            return tuple(found)
    return ()


def is_words(text: str) -> bool:
    r"""Whether an answer is words rather than mathematics: ``Evelyn``, ``\text{east}``, ``no``."""
    if any(character.isdigit() for character in text):
        return False
    plain = _COMMAND.sub(" ", _TEXT_COMMAND.sub(r"\1", text))
    return bool(_WORD.search(plain)) or plain.strip(" .").lower() in _SHORT_WORDS


@lru_cache(maxsize=4096)
def normalized_words(text: str) -> str:
    """Text without LaTeX's text commands, outer dollars, final stop, and differences of case and space."""
    plain = _TEXT_COMMAND.sub(r"\1", text).strip().strip("$").replace("\\ ", " ").replace("\\,", "")
    plain = " ".join(plain.split()).rstrip(".").strip()
    return plain.lower() if is_words(text) else plain
