"""Fields of decoded rows, each read with an error that names the place, the field and what it must hold.

Every reader takes the row, the field's name, ``where`` the row came from (``file:line``), and for a field
inside another one the ``path`` that leads to it (``steps[3].``), and raises a
:class:`~stepcredit.errors.DataError` where the field does not hold what it must.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from stepcredit.errors import DataError
from stepcredit.types import LARGEST_NUMBER

LARGEST_COUNT = 2**53
"""Whole numbers up to here are the same in every program that reads JSON."""


_SHOWN = 60
_RANGE = f"between -{LARGEST_NUMBER:g} and {LARGEST_NUMBER:g}".replace("e+", "e")


def shown(value: Any) -> str:
    """A value as it stands in an error message: JSON where possible, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def wrong(row: Mapping[str, Any], field: str, must_be: str, where: str, path: str = "") -> DataError:
    """The error that says what a field must be."""
    if field not in row:
        return DataError(f"field {path + field!r} is missing; it must be {must_be}", where=where)
    return DataError(f"field {path + field!r} must be {must_be}, not {shown(row[field])}", where=where)


def object_at(value: Any, path: str, parts: str, where: str) -> dict[str, Any]:
    """A value that must be an object; ``parts`` says what it holds, e.g. ``end and label``."""
    if not isinstance(value, dict):
        raise DataError(f"field {path!r} must be an object with {parts}, not {shown(value)}", where=where)
    return value


def text_field(row: Mapping[str, Any], field: str, where: str, path: str = "", *, empty: bool = False) -> str:
    """A string, not empty unless ``empty`` is on."""
    value = row.get(field)
    if not isinstance(value, str) or not (value or empty):
        raise wrong(row, field, "a string" if empty else "a string that is not empty", where, path)
    return value


def texts_field(row: Mapping[str, Any], field: str, where: str) -> list[str]:
    """A list of strings, at least one."""
    value = row.get(field)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise wrong(row, field, "a list of strings, not empty", where)
    return value


def optional_text(row: Mapping[str, Any], field: str, where: str) -> str | None:
    """A string or null; a number, as which other tools store answers, becomes text."""
    value = row.get(field)
    if value is None or isinstance(value, str):
        return value
    if type(value) is int or is_number(value):
        return str(value)
    raise wrong(row, field, "a string, a number or null", where)


def name_field(row: Mapping[str, Any], field: str, where: str) -> str:
    """An id: a string, or a whole number, which becomes text."""
    value = row.get(field)
    # A column of whole numbers with gaps is one of floats in pandas; 7 and 7.0 are the same id.
    if type(value) is int or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if not isinstance(value, str) or not value:
        raise wrong(row, field, "a string that is not empty, or a whole number", where)
    return value


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold; truth values are none."""
    if type(value) is float:
        return math.isfinite(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def _is_within(value: Any) -> bool:
    return is_number(value) and -LARGEST_NUMBER <= value <= LARGEST_NUMBER


def number_field(row: Mapping[str, Any], field: str, where: str, path: str = "") -> float:
    """A finite number, at most :data:`~stepcredit.types.LARGEST_NUMBER` in size."""
    value = row.get(field)
    if not _is_within(value):
        raise wrong(row, field, f"a finite number {_RANGE}", where, path)
    return float(value)  # type: ignore[arg-type]


def numbers_field(row: Mapping[str, Any], field: str, where: str) -> tuple[float, ...]:
    """A list of finite numbers, each as :func:`number_field` takes it."""
    values = row.get(field)
    if not isinstance(values, list) or not all(map(_is_within, values)):
        raise wrong(row, field, f"a list of finite numbers {_RANGE}", where)
    return tuple(map(float, values))


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 to :data:`LARGEST_COUNT`."""
    return type(value) is int and 0 <= value <= LARGEST_COUNT


def are_counts(values: list[Any]) -> bool:
    """As :func:`is_count`, of each; several times faster for a long list."""
    return {*map(type, values)} <= {int} and (
        not values or (min(values) >= 0 and max(values) <= LARGEST_COUNT)
    )


def count_field(row: Mapping[str, Any], field: str, where: str, path: str = "") -> int:
    """A whole number, 0 or more."""
    value = row.get(field)
    if not is_count(value):
        raise wrong(row, field, "a whole number from 0 to 2^53", where, path)
    return value  # type: ignore[return-value]


def counts_field(row: Mapping[str, Any], field: str, where: str) -> tuple[int, ...]:
    """A list of whole numbers, 0 or more."""
    values = row.get(field)
    if not isinstance(values, list) or not are_counts(values):
        raise wrong(row, field, "a list of whole numbers from 0 to 2^53", where)
    return tuple(values)


def truth(value: Any) -> bool | None:
    """The verdict that a value states: a boolean, or a number that is 0 or 1; ``None`` if it is neither."""
    if isinstance(value, bool):
        return value
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def truth_field(row: Mapping[str, Any], field: str, where: str) -> bool:
    """A verdict: a boolean, or 1 or 0 as other tools store them."""
    value = truth(row.get(field))
    if value is None:
        raise wrong(row, field, "true or false (or 1 or 0)", where)
    return value


def optional_truth(row: Mapping[str, Any], field: str, where: str) -> bool | None:
    """A verdict or null."""
    if row.get(field) is None:
        return None
    value = truth(row[field])
    if value is None:
        raise wrong(row, field, "true, false (or 1, 0) or null", where)
    return value
