"""Plain numbers: exact values without a computer algebra system."""

from __future__ import annotations

import re
from fractions import Fraction

_PLAIN = re.compile(r"([-+−]?)(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d*))?|([-+−]?)\.(\d+)")
_SPACED = re.compile(r"[-+−]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_WHOLE_FRACTION = re.compile(r"([-+−]?)(?:\\[dt]?frac\{(\d+)\}\{(\d+)\}|(\d+)/(\d+))")
_MOST_DIGITS = 60
_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}


def plain_number(text: str) -> Fraction | None:
    """Value of an integer or decimal, with or without thousands separators; ``None`` for anything else.

    >>> plain_number("-1,250.50")
    Fraction(-2501, 2)
    """
    if len(text) > _MOST_DIGITS:
        return None
    match = _PLAIN.fullmatch(text)
    if match is None:
        return None
    sign, whole, decimals, point_sign, point_decimals = match.groups()
    if whole is None:
        sign, whole, decimals = point_sign, "0", point_decimals
    decimals = decimals or ""
    value = Fraction(int(whole.replace(",", "") + decimals), 10 ** len(decimals))
    return -value if sign in ("-", "−") else value


def whole_fraction(text: str) -> Fraction | None:
    r"""Value of a quotient of plain integers, ``3/4`` or ``\\frac{3}{4}``; ``None`` for anything else."""
    match = _WHOLE_FRACTION.fullmatch(text) if len(text) <= _MOST_DIGITS else None
    if match is None:
        return None
    sign, top, bottom, plain_top, plain_bottom = match.groups()
    numerator, denominator = int(top or plain_top), int(bottom or plain_bottom)
    if denominator == 0:
        return None
    return Fraction(-numerator if sign in ("-", "−") else numerator, denominator)


def number_value(text: str) -> Fraction | None:
    """Value of a number as people write it: also ``1/2``, ``10%``, ``$5``, ``12 000``, ``2e-3``.

    Returns:
        The exact value, a percentage divided by 100; ``None`` if the text is not one number.
    """
    text = text.strip().strip("$€£¥₹ ").replace("\\!", "").replace("\\,", "").replace("\\$", "")
    if len(text) > _MOST_DIGITS:
        return None
    if _SPACED.fullmatch(text):
        text = text.replace(" ", "")
    for word, scale in _SCALES.items():
        if text.lower().endswith(word):
            value = plain_number(text[: -len(word)].strip())
            return None if value is None else value * scale
    if text.endswith("%"):
        value = plain_number(text[:-1].rstrip("\\ "))
        return None if value is None else value / 100
    fraction = re.fullmatch(r"([-+−]?)\s*\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", text)
    sign, top, bottom = fraction.groups() if fraction else ("", *text.partition("/")[::2])
    numerator, denominator = plain_number(top.strip()), plain_number(bottom.strip() or "1")
    if numerator is not None and denominator:
        value = numerator / denominator
        return -value if sign in ("-", "−") else value
    power = re.fullmatch(r"(.+?)(?:[eE]|\s*(?:\\times|×|\*)\s*10\s*\^\s*\{?)([-+]?\d{1,3})\}?", text)
    mantissa = plain_number(power[1].strip()) if power else None
    return None if power is None or mantissa is None else mantissa * Fraction(10) ** int(power[2])


def number_text(value: Fraction) -> str:
    """One canonical text for each value: ``18``, ``-2.5``; ``1/3`` where the decimals do not end."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if value.denominator == 1:
        return str(value.numerator)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    decimals = max(twos, fives)
    digits = str(abs(value.numerator) * 10**decimals // value.denominator).rjust(decimals + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-decimals]}.{digits[-decimals:]}"
