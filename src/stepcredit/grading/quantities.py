"""Numbers, formulas, and what stands for a number: times of day, ratios, other bases, amounts with units."""

from __future__ import annotations

import re
from collections.abc import Callable

from stepcredit.grading.answers import Amount, Answer, Based, Clock, Formula, Ratio, Region
from stepcredit.grading.formulas import parsed
from stepcredit.grading.numbers import Number, read_number
from stepcredit.grading.splitting import enclosed, split_at
from stepcredit.grading.units import Unit, may_be_factors, read_unit

_CLOCK = re.compile(
    r"(\d{1,2}):([0-5]\d)(?::([0-5]\d))?\s*([ap]\s?\.?\s?m\b\.?)?|(\d{1,2})\s*([ap]\s?\.?\s?m\b\.?)",
    re.IGNORECASE,
)
_RATIO = re.compile(r"[^:]+(?::[^:]+)+|(\d+) to (\d+)")
_BASED = re.compile(r"(\d[\dA-F]*)(?:_\s*\{?\s*| \(?(?:in )?base )(\d{1,2}|[a-z]{3,})\s*[})]?")
_CURRENCY = re.compile(
    r"([-+]?)\s*(?:US\s*)?(?:\\(usd|eur|gbp|yen|inr)|(Rs\.?|USD|EUR)(?=[\s\d]))\s*(?=[-+\d.\\])\s*(.+)"
)
_CURRENCY_BEHIND = re.compile(r"([-+\d.].*?)\s*(\\(?:usd|eur|gbp|yen|inr))")
_CURRENCIES = {"Rs": "rupee", "Rs.": "rupee"}
_UNIT = re.compile(
    r"(?P<value>.*?(?:[\d})!|](?: (?:dozen|hundred|thousand|[mb]illion|trillion))?|\\pi))(?P<space>\s*)"
    r"(?P<unit>(?:\\deg ?(?:C(?:elsius)?|F(?:ahrenheit)?)\b|\\mu|\\Omega|[A-Za-z])[A-Za-z\s.^{}/\d\\'-]*"
    r"|/\s*[A-Za-z].*)"
)
_UNIT_FRACTION = re.compile(r"(?<=[\d)}])(\s*)\\frac\{([A-Za-z]{1,3})\}\{([A-Za-z]{1,3}(?:\^\{?\d\}?)?)\}$")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+\.?)(?:,?\s*(?:and\s+)?)")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")


def read_quantity(text: str) -> Answer | None:
    r"""Read a text in the spelling of :mod:`~stepcredit.grading.notation` as one quantity.

    Returns:
        ``None`` if no part of this module takes the whole text.
    """
    answers = (reader(text) for reader in _READERS)
    return next((answer for answer in answers if answer is not None), None)


def _number(text: str) -> Answer | None:
    return read_number(text.strip())


def _clock(text: str) -> Answer | None:
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    hour = int(match[1] or match[5])
    half = re.sub(r"[^apm]", "", (match[4] or match[6] or "").lower())
    if hour > 24 or (half and not 1 <= hour <= 12):
        return None
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    return Clock(hour * 60 + int(match[2] or 0) + int(match[3] or 0) / 60, half)


def _ratio(text: str) -> Answer | None:
    match = _RATIO.fullmatch(text)
    if match is None or enclosed(text) or r"\{" in text or r"\mid" in text:
        return None
    terms = match.groups() if match[1] else split_at(text, [":"])
    values = [_number(term) or _formula(term) for term in terms]
    return None if len(values) < 2 or None in values else Ratio(tuple(value for value in values if value))


def _based(text: str) -> Answer | None:
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    base = read_number(match[2])
    return Based(match[1].lstrip("0") or "0", match[2] if base is None else str(base.value))


def _share(text: str) -> Answer | None:
    """A percentage or an angle in degrees."""
    for sign in (r"\%", r"\deg"):
        if text.endswith(sign) and not (sign == r"\deg" and _TRIGONOMETRY.search(text)):
            value = _number(text[: -len(sign)]) or _formula(text[: -len(sign)])
            return None if value is None else Amount(value, "%" if sign == r"\%" else "degree")
    return None


def _money(text: str) -> Answer | None:
    if behind := _CURRENCY_BEHIND.fullmatch(text):
        return _money(f"{behind[2]} {behind[1]}")
    match = _CURRENCY.fullmatch(text)
    if match is None:
        return None
    sign, command, word, rest = match.groups()
    unit = read_unit(command or _CURRENCIES.get(word, word))
    value = _number(sign + rest) or _measure(sign + rest) or _formula(sign + rest)
    if unit is None or value is None:
        return None
    if not isinstance(value, Amount):
        return Amount(value, unit)
    if value.unit == unit:  # $5 USD
        return value
    return Amount(value.value, unit.per(value.unit)) if isinstance(value.unit, Unit) else None


def _measure(text: str) -> Answer | None:
    match = _UNIT.fullmatch(_UNIT_FRACTION.sub(r"\1\2/\3", text))
    if match is None:
        return None
    written, value = match["unit"].strip(), _number(match["value"]) or _formula(match["value"].strip())
    if value is None:
        return None
    is_variable = isinstance(value, Formula) and value.expression.free_symbols
    has_letters = may_be_factors(written)
    if has_letters and (is_variable or len(split_at(match["value"].strip().lstrip("+-"), ["+", "-"])) > 1):
        return None  # pi r^2 h, 2 + 3m
    attached = not match["space"] or _UNIT_FRACTION.search(text) is not None
    behind_command = has_letters and "\\" in match["value"]  # in LaTeX a space says nothing
    unit = read_unit(written, attached=attached or behind_command)
    if unit is None or (unit.labels and is_variable):
        return None
    product = _formula(text) if unit.doubtful else None
    return Amount(value, unit, product if isinstance(product, Formula) else None)


def read_sum(text: str) -> Answer | None:
    """``3 hours 20 minutes``, ``5 feet, 6 inches``: the sum, in the last one's unit."""
    measures = [(read_number(value), read_unit(name)) for value, name in _PART.findall(text)]
    if len(measures) < 2 or _PART.sub("", text + " ").strip():
        return None
    total, last = None, measures[-1][1]
    for number, unit in measures:
        if (
            number is None
            or unit is None
            or last is None
            or unit.labels
            or unit.dimensions != last.dimensions
        ):
            return None
        total = number.value * unit.factor + (total or 0)
    return None if total is None or last is None else Amount(Number(total / last.factor), last)


def _formula(text: str) -> Answer | None:
    import sympy  # type: ignore[import-untyped]

    expression = parsed(text.strip())
    if isinstance(expression, sympy.Set):
        return None if isinstance(expression, sympy.FiniteSet) else Region(expression)
    return Formula(expression) if isinstance(expression, sympy.Expr | sympy.MatrixBase) else None


_READERS: tuple[Callable[[str], Answer | None], ...] = (
    _clock,
    _ratio,
    _based,
    _share,
    _money,
    _measure,
    _formula,
)
