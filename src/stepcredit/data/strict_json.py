"""JSON without its loopholes: no NaN, no infinities, nothing that UTF-8 cannot hold, no deep nesting."""

from __future__ import annotations

import json
import math
from typing import Any

DEEPEST = 200
"""Levels of nesting. Deeper values can be decoded, but not written again within Python's own limit."""


def parse_json(text: str | bytes) -> Any:
    """Decode JSON strictly.

    Raises:
        ValueError: Not JSON or not UTF-8, nested too deeply, or it holds NaN, an infinity or half of a
            surrogate pair.
    """
    if isinstance(text, bytes):
        text = text.decode()
    try:
        value = DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if "\\u" in text:
        check_jsonable(value)
    elif text.count("[") + text.count("{") > DEEPEST:
        check_depth(value)
    return value


def check_jsonable(value: Any) -> None:
    """Refuse what a line of JSON cannot hold.

    Raises:
        TypeError: There is a value of another type somewhere inside ``value``.
        ValueError: There is NaN, an infinity or half of a surrogate pair, or it is nested too deeply.
    """
    try:
        check_depth(value)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair") from error


def check_depth(value: Any) -> None:
    """Refuse values nested deeper than :data:`DEEPEST` levels.

    Raises:
        ValueError: It is.
    """
    level: list[Any] = [[value]]
    for _ in range(DEEPEST + 1):
        inner = [item.values() if isinstance(item, dict) else item for item in level]
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError("nested too deeply")


def to_line(row: Any) -> bytes:
    """A value as one line of JSON with its newline."""
    return _ENCODER.encode(row).encode() + b"\n"


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large")
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not allowed")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
