r"""Units of measurement: what stands behind a number, as a factor and what it measures.

``10 cm`` is ``0.1 m``; a word that is no known unit is a label of what is counted (``12 apples``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache

_TABLE: dict[str, dict[str, int | str]] = {
    "length": {
        "m meter metre": 1, "cm centimeter centimetre": "1/100", "mm millimeter millimetre": "1/1000",
        "km kilometer kilometre": 1000, "nm nanometer": "1e-9", "dm decimeter": "1/10", "in inch": "0.0254",
        "ft foot feet": "0.3048", "yd yard": "0.9144", "mi mile": "1609.344",
    },
    "mass": {
        "g gram": 1, "kg kilogram kilo": 1000, "mg milligram": "1/1000", "lb lbs pound": "453.59237",
        "oz ounce": "28.349523125", "ton tonne": 10**6,
    },
    "time": {
        "s sec second": 1, "ms millisecond": "1/1000", "min minute": 60, "h hr hour": 3600, "day": 86400,
        "week": 604800, "month": "2629746", "yr year": "31556952",
    },
    "volume": {
        "l L liter litre": 1, "ml milliliter millilitre": "1/1000", "gal gallon": "3.785411784",
        "quart": "0.946352946", "pint": "0.473176473", "cup": "0.2365882365",
    },
    "angle": {"radian rad": 1},
    "dollar": {"dollar buck usd": 1, "cent penny pennies": "1/100"},
    "euro": {"euro eur": 1}, "pound": {"gbp": 1}, "yen": {"yen": 1}, "rupee": {"rupee rs inr": 1},
    "yuan": {"yuan rmb": 1},
    "celsius": {"celsius": 1}, "fahrenheit": {"fahrenheit": 1}, "kelvin": {"kelvin": 1},
    "energy": {"J joule": 1, "kj kilojoule": 1000, "cal calorie": "4.184", "kcal": 4184, "kwh": 3_600_000},
    "force": {"N newton": 1, "kn kilonewton": 1000}, "power": {"W watt": 1, "kw kilowatt": 1000},
    "pressure": {"pa pascal": 1, "kpa": 1000, "atm": 101325}, "frequency": {"hz hertz": 1, "khz": 1000},
    "voltage": {"V volt": 1}, "current": {"amp ampere": 1}, "resistance": {"ohm": 1},
    "amount": {"mol mole": 1},
}  # fmt: skip
_KNOWN = {
    name: (dimension, Fraction(factor))
    for dimension, units in _TABLE.items()
    for names, factor in units.items()
    for name in names.split()
}
_COMPOUNDS = {"mph": "mi/h", "kph": "km/h", "kmh": "km/h", "kmph": "km/h", "fps": "ft/s", "cc": "cm^3"}
_LETTERS = r"(?:[mgshlLKNJWV]|nm|ms|rs|[kK][nNjJwW]|[pP]a)(?:\s*\^\s*\{?-?\d\}?)?"
_MAY_BE_FACTORS = re.compile(rf"{_LETTERS}(?:\s*[/\s]\s*{_LETTERS})*")
"""Units of a letter or two; right behind a number, without a space, they may also be factors of a product."""

_LINKING_WORDS = (
    "and or to plus minus times over divided by half quarter less more than if when not is are at from least "
    "most mod modulo hundred thousand million billion trillion dozen factorial squared cubed percent base "
    "remainder each where for with either both neither nor between but then so because since which that only "
    "until about approximately roughly"
)
_NO_LABELS = frozenset(_LINKING_WORDS.split())
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_TOKEN = re.compile(
    r"\s*(?:(?P<word>[A-Za-zµ]+\.?)|(?P<power>\^\s*\{?(-?\d)\}?)|(?P<over>/|\bper\b)|\\cdot|\*|\\times)"
)


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts or measures.

    Attributes:
        factor: How many base units one of it is.
        dimensions: Dimensions and labels with their powers, in order.
        doubtful: Whether the text may also mean a factor of a product, as in ``5m``.
    """

    factor: Fraction
    dimensions: tuple[tuple[str, int], ...]
    text: str = field(default="", compare=False)
    doubtful: bool = False

    @property
    def labels(self) -> frozenset[str]:
        """Words of what is counted; empty if it is a measure."""
        return frozenset(name.removeprefix("label:") for name, _ in self.dimensions if ":" in name)

    def per(self, other: Unit) -> Unit:
        """The product with a unit that has its own sign: dollars, and ``per hour``."""
        dimensions = tuple(sorted((*self.dimensions, *other.dimensions)))
        return Unit(self.factor * other.factor, dimensions, f"{self.text} {other.text}")

    def agrees(self, other: Unit) -> bool:
        """Whether amounts of both can be compared: same dimensions, or labels that one of them shortens."""
        if self.labels and other.labels:
            return self.labels <= other.labels or other.labels <= self.labels
        return self.dimensions == other.dimensions


def may_be_factors(text: str) -> bool:
    """Whether all letters of a unit may as well be variables: ``m``, ``m^2``, ``m/s``, ``rs``."""
    return _MAY_BE_FACTORS.fullmatch(text.strip()) is not None


@lru_cache(maxsize=4096)
def read_unit(text: str, *, attached: bool = False) -> Unit | None:
    r"""A unit in the spelling of :mod:`~stepcredit.grading.notation`, read as a whole.

    Args:
        text: ``cm``, ``m/s^2``, ``square feet``, ``miles per hour``, ``red apples``.
        attached: It follows its number without a space.

    Returns:
        ``None`` for whatever is no unit, such as ``or 5`` or ``and a half``.
    """
    if attached and may_be_factors(text):
        unit = read_unit(text)
        return None if unit is None else replace(unit, doubtful=True)
    written = text
    text = re.sub(
        r"\\deg ?C(?:elsius)?\b", "celsius", re.sub(r"\\deg ?F(?:ahrenheit)?\b", "fahrenheit", text)
    )
    text = text.replace(r"\Omega", "ohm").replace(r"\mu", "µ").strip()
    for short, long in _COMPOUNDS.items():
        text = re.sub(rf"\b{short}\b\.?", long, text)
    text = re.sub(r"^((?:sq\.?|square|cubic|cu\.?)? ?units?) ?\^\{?[23]\}?$", r"\1", text)
    unit = _measure(re.sub(r" of [a-z ]+$", "", text)) or (None if attached else _label(text))
    return None if unit is None else replace(unit, text=written)


def _measure(text: str) -> Unit | None:
    """A product of known units and their powers."""
    factor, powers = Fraction(1), dict[str, int]()
    position, sign, pending, last = 0, 1, 1, None
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        position, word = match.end(), (match["word"] or "").rstrip(".")
        if match["over"] or word == "per":
            sign, last = -1, None
            continue
        if match["power"] or word in ("squared", "cubed"):
            if last is None:
                return None
            more = (int(match[3]) if match["power"] else _POWERS[word]) * sign - sign
            factor *= last[1] ** more
            powers[last[0]] += more
            continue
        if not word:
            continue
        if word in _POWERS:
            pending = _POWERS[word]
            continue
        known = _known(word)
        if known is None:
            return None
        power = sign * pending
        factor *= known[1] ** power
        powers[known[0]] = powers.get(known[0], 0) + power
        pending, last = 1, known
    if "volume" in powers:  # a litre is a cubic decimetre
        power = powers.pop("volume")
        factor *= Fraction(1, 1000) ** power
        powers["length"] = powers.get("length", 0) + 3 * power
    dimensions = tuple(sorted((name, power) for name, power in powers.items() if power))
    return Unit(factor, dimensions) if dimensions else None


def _known(word: str) -> tuple[str, Fraction] | None:
    if len(word) == 1:
        return _KNOWN.get(word)
    lower = word.lower()
    names = (lower, lower.removesuffix("s"), lower.removesuffix("es"))
    return next((_KNOWN[name] for name in names if len(name) > 1 and name in _KNOWN), None)


def _label(text: str) -> Unit | None:
    """Words of what is counted, in the singular."""
    words = text.lower().split()
    if not 1 <= len(words) <= 5 or any(not re.fullmatch(r"[a-z][a-z'-]+\.?", word) for word in words):
        return None
    if any(word in _ALPHABET for word in words):
        return None  # a product of variables: 3 xyz
    if _NO_LABELS & {*words} or all(len(word) < 3 for word in words):
        return None
    stems = {word.rstrip(".").removesuffix("s").removesuffix("e") for word in words} - {"th", "of", "a", "in"}
    return Unit(Fraction(1), tuple((f"label:{stem}", 1) for stem in sorted(stems))) if stems else None
