"""Numbers as people write them: exact values without a computer algebra system, and when two are the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from stepcredit.grading.notation import normalized
from stepcredit.grading.units import read_unit

_PLAIN = re.compile(r"([-+−]?)(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d*))?|([-+−]?)\.(\d+)")
_WHOLE_FRACTION = re.compile(r"([-+−]?)(?:\\[dt]?frac\{(\d+)\}\{(\d+)\}|(\d+)/(\d+))")
_SPACED = re.compile(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_QUOTIENT = re.compile(r"([-+]?)\s*(?:\\frac\{([^{}]*)\}\{([^{}]*)\}|([^\s/]+)\s*/\s*([^\s/]+))")
_MIXED = re.compile(r"([-+]?)\s*(\d+)\s*(?:\\frac\{(\d+)\}\{(\d+)\}|(?: | and | \+ )\s*(\d+)\s*/\s*(\d+))")
_POWER_OF_TEN = re.compile(
    r"(?:(.+?)\s*(?:\\times|\\cdot|\bx\b)\s*)?10\s*\^\s*\{?\s*([-+]?\d{1,4})\s*\}?|(.+?)[eE]([-+]?\d{1,4})"
)
_REPEATING = re.compile(
    r"([-+]?)(\d*)\.(\d*)(?:\\(?:overline|bar|dot|overbar)\s*\{?(\d+)\}?|\((\d+)\)"
    r"|\\dot\{(\d)\}(\d*)\\dot\{(\d)\})(?:\s*\\ldots)?"
)
_GOES_ON = re.compile(r"([-+]?\d*\.\d+?)\s*\\ldots")
_LONGEST_COUNT = 100  # characters of a number and its unit
_MOST_DIGITS = 2000  # Python converts 4300 at most
_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_FIRST_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_NAMES = {name: value for value, name in enumerate(_FIRST_NAMES.split())}
_NAMES |= {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_COMPOUND_NAME = re.compile(
    r"(twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)[- ]\s?"
    r"(one|two|three|four|five|six|seven|eight|nine)"
)
_ENOUGH_DIGITS = 6  # significant ones that a rounded decimal must have to stand for a longer number
_NOISE_DIGITS, _NOISE = 15, Fraction(1, 10**13)  # what sums of floating-point numbers end in
_IRRATIONAL_DIGITS = Fraction(1, 10**40)  # two irrational numbers that agree to this share are the same


@dataclass(frozen=True, slots=True)
class Number:
    """A real number and how precisely it was written.

    Attributes:
        value: The exact value; of irrational numbers one that is right to 50 significant digits.
        digits: Significant digits, where it was written as a decimal; 0 for whole numbers and fractions.
        decimals: Digits after the point, where it was written as a decimal; may be negative.
        irrational: Whether ``value`` stands for a number that is no fraction.
        goes_on: Whether dots follow its last digit.
    """

    value: Fraction
    digits: int = 0
    decimals: int = 0
    irrational: bool = False
    goes_on: bool = False


def same_number(first: Number, second: Number) -> bool:
    """Whether two numbers are equal, or one is the other rounded to six significant digits or more.

    A rounded decimal stands for a fraction whose decimals do not end and for an irrational number; for a
    longer decimal only from six decimals on, since amounts such as 1234.56 and 1234.567 are not the same.
    """
    if first.value == second.value:
        return True
    difference, largest = abs(first.value - second.value), max(abs(first.value), abs(second.value))
    if first.irrational and second.irrational:
        return difference <= _IRRATIONAL_DIGITS * largest
    if max(first.digits, second.digits) >= _NOISE_DIGITS and difference <= _NOISE * largest:
        return True
    return _rounds(first, second) or _rounds(second, first)


def _rounds(short: Number, long: Number) -> bool:
    """Whether ``short`` is ``long`` rounded, or cut, after its last decimal."""
    if short.digits < _ENOUGH_DIGITS or short.decimals < 1:
        return False
    ends = not long.irrational and not long.goes_on and _decimals_needed(long.value) is not None
    if ends and (short.decimals < _ENOUGH_DIGITS or long.decimals <= short.decimals):
        return False
    missing, place = abs(long.value) - abs(short.value), Fraction(10) ** -short.decimals
    return short.value * long.value > 0 and -place / 2 <= missing < place


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


@lru_cache(maxsize=8192)
def read_number(text: str) -> Number | None:
    r"""A number in the spelling of :mod:`~stepcredit.grading.notation`, read as a whole.

    >>> read_number(r"1 \frac{3}{4}").value, read_number(r"0.1\overline{6}").value, read_number("6e-3").value
    (Fraction(7, 4), Fraction(1, 6), Fraction(3, 500))

    Returns:
        ``None`` for whatever is not one number: no unit, no percentage, no currency.
    """
    if len(text) > _MOST_DIGITS:
        return None
    text = text.replace(" ", "") if _SPACED.fullmatch(text) else text
    sign = re.match(r"[-+] (?=[\d.])", text)
    text = text[0] + text[2:] if sign else text
    return _decimal(text) or _quotient(text) or _mixed(text) or _repeating(text) or _scaled(text)


def _decimal(text: str) -> Number | None:
    value = plain_number(text)
    if value is None:
        return None
    _, point, decimals = text.partition(".")
    if not point or not decimals:
        return Number(value)
    significant = re.sub(r"\D", "", text).lstrip("0")
    return Number(value, digits=len(significant) or 1, decimals=len(decimals))


def _quotient(text: str) -> Number | None:
    match = _QUOTIENT.fullmatch(text)
    if match is None:
        return None
    sign, top, bottom, plain_top, plain_bottom = match.groups()
    numerator = plain_number((top or plain_top or "").strip())
    denominator = plain_number((bottom or plain_bottom or "").strip())
    if numerator is None or not denominator:
        return None
    return Number((-1 if sign == "-" else 1) * numerator / denominator)


def _mixed(text: str) -> Number | None:
    """A whole number and a proper fraction: ``2 2/3``."""
    match = _MIXED.fullmatch(text)
    if match is None:
        return None
    sign, whole, *parts = match.groups()
    top, bottom = (int(part) for part in parts if part is not None)
    if not 0 < top < bottom:
        return None
    return Number((-1 if sign == "-" else 1) * (int(whole) + Fraction(top, bottom)))


def _repeating(text: str) -> Number | None:
    """A decimal that repeats, by a bar, by dots above, by parentheses, or by dots after it."""
    if match := _GOES_ON.fullmatch(text):
        return _continued(match[1])
    match = _REPEATING.fullmatch(text)
    if match is None:
        return None
    sign, whole, fixed, bar, parentheses, first, middle, last = match.groups()
    period = bar or parentheses or f"{first}{middle}{last}"
    before = Fraction(int((whole or "0") + fixed), 10 ** len(fixed))
    value = before + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
    return Number(-value if sign == "-" else value)


def _continued(text: str) -> Number | None:
    """``0.333...`` is 1/3; ``3.14159...`` is only known to its digits."""
    number = _decimal(text)
    if number is None:
        return None
    repeated = re.fullmatch(r"([-+]?\d*\.\d*?)(?:(\d)\2{2,}|(\d{2,}?)\3+)", text)
    if repeated is None:
        return Number(number.value, number.digits, number.decimals, goes_on=True)
    return _repeating(f"{repeated[1]}({repeated[2] or repeated[3]})")


def _scaled(text: str) -> Number | None:
    r"""``5 \\times 10^{3}``, ``5e3``, ``1.8 billion``, ``three``, ``twenty-five``."""
    word = text.lower().rpartition(" ")[2]
    if word in _NAMES and word == text.lower():
        return Number(Fraction(_NAMES[word]))
    if compound := _COMPOUND_NAME.fullmatch(text.lower()):
        return Number(Fraction(_NAMES[compound[1]] + _NAMES[compound[2]]))
    for name, scale in _SCALES.items():
        if text.lower().endswith(name):
            amount = read_number(text[: -len(name)].strip() or "1")
            return None if amount is None else Number(amount.value * scale)
    match = _POWER_OF_TEN.fullmatch(text)
    if match is None:
        return None
    mantissa, exponent = match[1] if match[2] else match[3], int(match[2] or match[4])
    number = Number(Fraction(1)) if mantissa is None else _decimal(mantissa.strip())
    if number is None:
        return None
    digits, decimals = number.digits, number.decimals - exponent if number.digits else 0
    return Number(number.value * Fraction(10) ** exponent, digits, decimals)


def number_value(text: str) -> Fraction | None:
    """Value of a number as people write it: also ``1/2``, ``10%``, ``$5``, ``12 000``, ``2e-3``.

    Returns:
        The exact value, a percentage divided by 100; ``None`` if the text is not one number.
    """
    if (value := plain_number(text.strip())) is not None:
        return value
    if len(text) > _MOST_DIGITS:
        return None
    text = re.sub(r"\\(?:usd|eur|gbp|yen|inr) ?", "", normalized(text))
    share = 100 if text.endswith(r"\%") else 1
    number = read_number(text.removesuffix(r"\%").strip())
    return None if number is None else number.value / share


_WITH_UNIT = re.compile(r"[$€£¥₹]?\s?([-+−]?)[$€£¥₹]?\s?(\d[\d,]*(?:\.\d+)?|\d+/\d+)(?: ([A-Za-z].*))?")


@lru_cache(maxsize=8192)
def counted_number(text: str) -> Number | None:
    """A plain number or quotient behind a currency sign or before a unit, both left out; else ``None``."""
    match = _WITH_UNIT.fullmatch(text)
    if match is None:
        return _before_unit(normalized(text)) if len(text) <= _LONGEST_COUNT else None
    if match[3] is not None and read_unit(normalized(match[3])) is None:
        return _before_unit(normalized(text)) if len(text) <= _LONGEST_COUNT else None
    return read_number(match[1].replace("−", "-") + match[2])


def _before_unit(text: str) -> Number | None:
    """The longest number at the start, where the rest is a unit: ``5 million dollars``."""
    words = re.sub(r"\\(?:usd|eur|gbp|yen|inr)(?![A-Za-z]) ?", "", text).split(" ")
    for count in range(len(words) - 1, 0, -1):
        number = read_number(" ".join(words[:count]))
        if number is not None:
            return None if read_unit(" ".join(words[count:])) is None else number
    return None


def _decimals_needed(value: Fraction) -> int | None:
    """How many decimals a number has, ``None`` where they do not end."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def number_text(value: Fraction) -> str:
    """One canonical text for each value: ``18``, ``-2.5``; ``1/3`` where the decimals do not end."""
    decimals = _decimals_needed(value)
    if value.denominator == 1:
        return str(value.numerator)
    if decimals is None:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**decimals // value.denominator).rjust(decimals + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-decimals]}.{digits[-decimals:]}"
