"""Rows as they come from any source, before anything is known of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from stepcredit.data.strict_json import check_jsonable


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that cannot be read, why, and what can be done.

    It is yielded, not raised, so that the caller decides whether it ends the run or is skipped.
    """

    problem: str
    hint: str = "correct the row, or pass --skip-invalid"


NumberedRow = tuple[int, dict[str, Any] | Malformed]
"""The row's line in the file (for tables and JSON arrays: which row it is), from 1, and its fields."""


def checked(row: Mapping[str, Any]) -> dict[str, Any] | Malformed:
    """A row of a table as JSON can hold it: times as ISO 8601, decimal numbers as text."""
    try:
        check_jsonable(row)
        return dict(row)
    except TypeError:
        row = {name: _plain(value) for name, value in row.items()}
    except ValueError:
        pass
    for name, value in row.items():
        try:
            check_jsonable(value)
        except (TypeError, ValueError) as error:
            return Malformed(f"column {name!r} holds a value that JSON cannot ({error})")
    return dict(row)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta | Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
