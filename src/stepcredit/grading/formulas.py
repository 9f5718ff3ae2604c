r"""Formulas: parsed by latex2sympy (the parser of math-verify), compared by their values.

What math-verify 0.9.0 and latex2sympy2_extended 1.11.0 get wrong is worked around here: the parser reads
``2(3)`` and ``2 3`` as 5, ``x'`` and ``x^T`` as ``x``, ``R`` as ``r``, degrees as bare numbers, and decimals
at 15 digits; the comparison rounds to six decimals and takes what is below 1e-15 for zero.
``docs/grading.md`` has the whole list.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

from stepcredit.grading.numbers import Number, same_number

if TYPE_CHECKING:
    import mpmath  # type: ignore[import-untyped]

_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}|\\mathbb\{[A-Z]\}|\\[A-Za-z]+|_\{[^{}]*\}")
_WORD = re.compile(r"[A-Za-z]{4,}")
_SHORT_WORDS = re.compile(
    r"\b(?:and|or|the|is|are|for|if|of|to|no|not|yes|any|all|both|one|two|ten|odd|mod|div|per|has|can|but|let|was)\b",
    re.IGNORECASE,
)
_UNREADABLE = re.compile(
    r"\\(?:ldots|usd|eur|gbp|yen|inr|pmod|bmod|mod|cong|sim|perp|parallel|triangle|angle|forall|exists|overline"
    r"|underline|therefore)(?![A-Za-z])|\\\{|\\\}|\d\s+[\d.]|[;?\"@&#]|\\\\|\.\s|\d,\d{1,2}(?!\d)|\d'|\d\s*_"
    r"|\d\s*\^\s*(?:\{\d+\}|\d)\s*_"
)
_DEGREES = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*\\deg(?![A-Za-z])")
_MIXED = re.compile(r"(?<![\d.}_^])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}")
_DECIMAL = re.compile(r"(\^\s*)?(?<![\d_])(\d*)\.(\d+)")
_IMAGINARY = re.compile(r"(?<![A-Za-z\\_])(?<!_\{)i(?![A-Za-z])")
_PI_TIMES = re.compile(r"\\pi\s*(?=\()")  # pi(x) would be a function
_COEFFICIENT = re.compile(r"(?<![\w.}/^)\]])(\d+)\s*/\s*(\d+)(?=\s*[A-Za-z])")
_ODD_ROOT = re.compile(r"\\sqrt\[([3579])\]\{\s*-\s*(\d+|\\frac\{\d+\}\{\d+\})\s*\}")
_LETTER = re.compile(r"[A-Za-z]")
_UNSEEN = frozenset("deiEI")
"""Letters that may stand for no symbol: of differentials, of Euler's number and of the imaginary unit."""
_JUXTAPOSED = re.compile(
    r"(?<![\d^_.])(\d+)\s*(?=\()|(?<=\))\s*(?=\()|(?<=\))\s*(?=[\d\\A-Za-z])(?!\\(?:cdot|times|div|le|ge|ne|in|deg|pm|mid|rfloor|rceil)\b)"
)
_PRIME = re.compile(r"([A-Za-z])('+)")
_DIGITS, _SAME_DIGITS = 60, 45  # digits that are computed, and that must agree
_POINTS = ("0.3819", "1.6131", "-2.2371", "4.7713")
_FACTORS = frozenset("abckmnrstuvwxyz")  # x(y) is a product, f(y) is not
FAILURES = (ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError)


@lru_cache(maxsize=4096)
def parsed(text: str) -> Any:
    r"""The sympy object that a formula in the spelling of :mod:`~stepcredit.grading.notation` stands for.

    Returns:
        ``None`` if the parser does not take the whole text, or the text has words.
    """
    plain = _COMMAND.sub(" ", text)
    if _WORD.search(plain) or _SHORT_WORDS.search(plain) or _UNREADABLE.search(text):
        return None
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

    config = ConversionConfig(lowercase_symbols=False)  # else R - r is 0
    try:
        expression = latex2sympy(
            _for_parser(text), is_real=True, conversion_config=config, normalization_config=None
        )
    except Exception:  # it raises plain Exception where it cannot read
        return None
    if expression is None or _lost_letters(plain, expression):
        return None
    return _fixed(expression)


def _lost_letters(plain: str, expression: Any) -> bool:
    """Whether the parser dropped a letter without a word, as it does the exponent of ``2^T``."""
    import sympy  # type: ignore[import-untyped]
    from sympy.core.function import AppliedUndef  # type: ignore[import-untyped]

    if not isinstance(expression, sympy.Basic | sympy.MatrixBase):
        return False
    names = [str(symbol) for symbol in expression.atoms(sympy.Symbol, sympy.MatrixSymbol)]
    names += [str(call.func) for call in expression.atoms(AppliedUndef)]
    return not {*_LETTER.findall(plain)} - _UNSEEN <= {*_LETTER.findall("".join(names))}


def _for_parser(text: str) -> str:
    text = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text)
    if r"\deg" in text:
        raise ValueError("a degree sign after something that is not a number")
    # As in 1/2(x+1), which the parser reads from left to right.
    text = _COEFFICIENT.sub(r"\\frac{\1}{\2}", re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text))
    text = _MIXED.sub(_mixed, _ODD_ROOT.sub(r"(-\\sqrt[\1]{\2})", text))
    text = _DECIMAL.sub(_exact_decimal, text)
    if r"\sum" not in text and r"\prod" not in text:
        text = _IMAGINARY.sub("(I)", text)  # without parentheses its power would be lost
    text = _PI_TIMES.sub(r"\\pi \\cdot ", text)
    text = _PRIME.sub(lambda match: f"{match[1]}_{{{'p' * len(match[2])}}}", text)
    text = re.sub(r"\\lg(?![A-Za-z])", r"\\log_{10}", text)
    return _JUXTAPOSED.sub(lambda match: rf"{match[1] or ''} \cdot ", text)


def _mixed(match: re.Match[str]) -> str:
    whole, top, bottom = (int(group) for group in match.groups())
    if not 0 < top < bottom:
        return rf"{whole} \cdot \frac{{{top}}}{{{bottom}}}"
    return rf"(\frac{{{whole * bottom + top}}}{{{bottom}}})"


def _exact_decimal(match: re.Match[str]) -> str:
    """A decimal as a fraction, since the parser's numbers have 15 digits."""
    caret, whole, decimals = match.groups()
    fraction = rf"\frac{{{int(whole + decimals)}}}{{{10 ** len(decimals)}}}"
    return f"^{{{fraction}}}" if caret else f"({fraction})"


def _fixed(expression: Any) -> Any:
    """Unknown functions as products where the name is a variable's, else as symbols; matrices for ever."""
    import sympy
    from sympy.core.function import AppliedUndef

    def plain(call: Any) -> Any:
        name = str(call.func)
        if name.lower() in _FACTORS and len(call.args) == 1:
            return sympy.Symbol(name, real=True) * call.args[0]
        return sympy.Symbol(str(call), real=True)

    if isinstance(expression, sympy.MatrixBase):
        return sympy.ImmutableMatrix(expression)
    if not isinstance(expression, sympy.Basic) or not expression.has(AppliedUndef):
        return expression
    return expression.replace(lambda part: isinstance(part, AppliedUndef), plain)


@lru_cache(maxsize=4096)
def constant(expression: Any) -> Number | None:
    """The value of an expression without symbols, ``None`` where it has some or is not a real number."""
    import sympy

    if not isinstance(expression, sympy.Expr) or expression.free_symbols:
        return None
    try:
        exact = expression.doit()
        if exact.is_Rational:
            return Number(Fraction(int(exact.p), int(exact.q)))
        value = exact.evalf(_DIGITS)
        if not value.is_Float or not value.is_finite:
            return None
        if value._prec < 20:  # all digits cancelled: sympy cannot tell it from zero
            return Number(Fraction(0)) if exact.equals(0) else None
        fraction = Fraction(*map(int, sympy.Rational(value).as_numer_denom()))
    except FAILURES:
        return None
    near = fraction.limit_denominator(10**6)
    if abs(near - fraction) <= Fraction(1, 10**_SAME_DIGITS) * abs(fraction):
        return Number(near)
    return Number(fraction, irrational=True)


@lru_cache(maxsize=4096)
def _values(expression: Any) -> tuple[mpmath.mpc, ...] | None:
    """Values at fixed points, the same for symbols of the same name; ``None`` without any."""
    import mpmath
    import sympy

    values = []
    for start in _POINTS:
        point = {
            symbol: sympy.Rational(start) + sympy.Rational(crc32(str(symbol).encode()), 2**32)
            for symbol in expression.free_symbols
        }
        try:
            real, imaginary = expression.doit().evalf(_DIGITS, subs=point).as_real_imag()
            with mpmath.workdps(_DIGITS):
                values.append(mpmath.mpc(mpmath.mpf(str(real)), mpmath.mpf(str(imaginary))))
        except FAILURES:
            return None
        if not mpmath.isfinite(values[-1]):
            return None
    return tuple(values)


def same_expression(first: Any, second: Any) -> bool:
    """Whether two sympy objects are mathematically the same, as far as their values tell.

    Expressions with symbols are compared at four points; where both are real at some of them,
    only there (the logarithm of a square equals twice the logarithm).
    """
    import sympy

    if first == second:
        return True
    if isinstance(first, sympy.MatrixBase) and isinstance(second, sympy.MatrixBase):
        pairs = zip(first, second, strict=True) if first.shape == second.shape else None
        return pairs is not None and all(same_expression(*pair) for pair in pairs)
    if not isinstance(first, sympy.Expr) or not isinstance(second, sympy.Expr):
        return False
    value, other = constant(first), constant(second)
    if value is not None and other is not None:
        return same_number(value, other)
    values, others = _values(first), _values(second)
    if values is None or others is None:
        return _verified(first, second)
    pairs_of_values = list(zip(values, others, strict=True))
    real = [pair for pair in pairs_of_values if not pair[0].imag and not pair[1].imag]
    return all(_close(*pair) for pair in real or pairs_of_values)


def _close(first: Any, second: Any) -> bool:
    import mpmath

    with mpmath.workdps(_DIGITS):
        return bool(abs(first - second) <= mpmath.mpf(10) ** -_SAME_DIGITS * max(abs(first), abs(second)))


def _verified(first: Any, second: Any) -> bool:
    """Symbolic equality, by math-verify: for what has no values (limits, unevaluated integrals)."""
    from math_verify import verify

    return bool(verify([first], [second], timeout_seconds=None))  # the time limit is the pool's


def proportion(first: Any, second: Any) -> int:
    """Sign of the constant by which one expression is a multiple of the other; 0 if it is none."""
    values, others = _values(first), _values(second)
    if values is None or others is None or not all(values) or not all(others):
        return 0
    import mpmath

    with mpmath.workdps(_DIGITS):
        ratios = [value / other for value, other in zip(values, others, strict=True)]
    if not all(_close(ratio, ratios[0]) for ratio in ratios):
        return 0
    return 1 if ratios[0].real > 0 else -1


def numerator(expression: Any) -> Any:
    """Numerator of an expression as one fraction: where it is zero, the expression is."""
    import sympy

    return sympy.together(expression).as_numer_denom()[0]
