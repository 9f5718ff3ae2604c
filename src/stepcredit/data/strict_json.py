"""JSON without its loopholes: no NaN, no infinities, nothing that UTF-8 cannot hold."""

from __future__ import annotations

import json
import math
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Decode JSON strictly.

    Raises:
        ValueError: Not JSON or not UTF-8, or it holds NaN, an infinity or half of a surrogate pair.
    """
    if isinstance(text, bytes):
        text = text.decode()
    try:
        value = DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if "\\u" in text:
        check_encodable(value)
    return value


def check_encodable(value: Any) -> None:
    """Refuse text that UTF-8 cannot hold.

    Raises:
        ValueError: There is half of a surrogate pair somewhere inside ``value``.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair") from error


def to_line(row: Any) -> bytes:
    """A value as one line of JSON with its newline."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large")
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not allowed")


DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
