"""Plain values, as YAML, JSON and the command line hold them, to the types of dataclass fields.

Every mistake is a :class:`~stepcredit.errors.UserError` of one line with the place and the field.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from stepcredit.errors import UserError
from stepcredit.options import spellings
from stepcredit.wording import suggestion

Record = TypeVar("Record")

_LARGEST_WHOLE_NUMBER = 2**63 - 1
"""What fits into a machine's own whole numbers, in which all of them end: seeds, sizes and counts."""


def without_none(kind: Any) -> Any:
    """The type of an optional field apart from ``None``."""
    if get_origin(kind) in (Union, types.UnionType):
        rest = [part for part in get_args(kind) if part is not type(None)]
        assert len(rest) == 1, f"a field has one type, or one and None: {kind}"
        return rest[0]
    return kind


def is_required(field: Field[Any]) -> bool:
    """Whether a field has no default."""
    return field.default is MISSING and field.default_factory is MISSING


def typed_record(record: type[Record], content: Any, where: str) -> Record:
    """An instance of a dataclass from a mapping; what is not given has its default.

    Raises:
        UserError: A field is unknown, missing or not of its type, or the dataclass refuses it.
    """
    values = typed_fields(record, content, where)
    for field in fields(cast(Any, record)):
        if is_required(field) and values.get(field.name) is None:
            raise UserError("is missing", where=f"{where}: {field.name}")
    return record(**values)


def typed_fields(record: type, content: Any, where: str) -> dict[str, Any]:
    """Those fields of a dataclass that a mapping gives, under any of their spellings.

    Raises:
        UserError: A field is unknown, given twice or not of its type.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"must hold 'name: value' lines, not {brief(content)}", where=where)
    known = {name: field for field in fields(record) for name in spellings(field)}
    kinds = get_type_hints(record)
    values: dict[str, Any] = {}
    for raw, value in content.items():
        field = known.get(str(raw).replace("-", "_"))
        if field is None:
            names = [field.name for field in fields(record)]
            raise UserError(f"there is no setting {raw!r}", where=where, hint=suggestion(str(raw), names))
        if field.name in values:
            raise UserError(f"{field.name} is given twice, also as {raw}", where=where)
        if value is None and is_required(field):
            raise UserError("is missing", where=f"{where}: {raw}")
        values[field.name] = typed_field(value, field, kinds[field.name], f"{where}: {raw}")
    return values


def typed_field(value: Any, field: Field[Any], kind: Any, where: str) -> Any:
    """A value of a field, one of its choices where it has any.

    Raises:
        UserError: It is neither.
    """
    result = typed(value, kind, where)
    choices = field.metadata.get("choices")
    if choices and result is not None and result not in choices:
        raise UserError(
            f"{value!r} is not one of {', '.join(choices)}", where=where, hint=suggestion(result, choices, "")
        )
    return result


def typed(value: Any, kind: Any, where: str) -> Any:
    """A value as a type: a number, text, path, literal, list, mapping or dataclass, or ``None``.

    Text becomes a number where one is wanted (YAML reads 1e-4 as text), and ``1,4,16`` a list of numbers.

    Raises:
        UserError: It is not of that type.
    """
    if kind is Any or (value is None and types.NoneType in get_args(kind)):
        return value
    inner = _kind_for(value, kind)
    if is_dataclass(inner) and isinstance(inner, type):
        return typed_record(inner, value, where)
    origin = get_origin(inner)
    if origin is tuple:
        return _typed_items(value, inner, where)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _not_of(value, inner, where)
        return {str(key): typed(item, get_args(inner)[1], f"{where}.{key}") for key, item in value.items()}
    try:
        return _scalar(value, inner)
    except OverflowError as error:
        raise UserError(f"{brief(value)} is too large", where=where) from error
    except (ValueError, TypeError) as error:
        raise _not_of(value, inner, where) from error


def _kind_for(value: Any, kind: Any) -> Any:
    """Where a field may also hold a record, that is what a mapping is."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    records = [part for part in kinds if is_dataclass(part)]
    others = [part for part in kinds if part not in (*records, types.NoneType)]
    if records and (isinstance(value, Mapping) or not others):
        return records[0]
    assert len(others) == 1, f"a field has one type, besides a record and None: {kind}"
    return others[0]


def _typed_items(value: Any, kind: Any, where: str) -> tuple[Any, ...]:
    """A list; a value that is none becomes a list of one, but where anything may be an item."""
    if Ellipsis not in get_args(kind):
        if not isinstance(value, list | tuple) or len(value) != len(get_args(kind)):
            raise _not_of(value, kind, where)
        return tuple(
            typed(inner, item, f"{where}[{index}]")
            for index, (inner, item) in enumerate(zip(value, get_args(kind), strict=True))
        )
    item = get_args(kind)[0]
    if isinstance(value, str) and item in (int, float):
        try:
            return tuple(_scalar(part, item) for part in value.split(",") if part.strip())
        except OverflowError as error:
            raise UserError(f"{brief(value)} is too large", where=where) from error
        except ValueError as error:
            raise _not_of(value, kind, where) from error
    if isinstance(value, list | tuple):
        return tuple(typed(inner, item, f"{where}[{index}]") for index, inner in enumerate(value))
    if item is Any:
        raise _not_of(value, kind, where)
    return (typed(value, item, where),)


def _scalar(value: Any, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(value)
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError(value)
        return value
    if not isinstance(value, str | int | float | Path) or isinstance(value, bool):
        raise ValueError(value)
    if kind in (str, Path):
        if kind is Path and not str(value):  # It would be the current folder.
            raise ValueError(value)
        return kind(str(value))
    if isinstance(value, Path):
        raise ValueError(value)
    if kind is int:
        number = float(value) if isinstance(value, str) and "e" in value.lower() else value
        if isinstance(number, float) and not number.is_integer():
            raise ValueError(value)
        whole = int(number)
        if abs(whole) > _LARGEST_WHOLE_NUMBER:
            raise OverflowError(value)
        return whole
    assert kind is float, f"a field cannot be of the type {kind}"
    if not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def brief(value: Any) -> str:
    """A value as a message shows it, cut where it is long."""
    return repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."


def _not_of(value: Any, kind: Any, where: str) -> UserError:
    return UserError(f"{brief(value)} is not {type_name(kind)}", where=where)


def type_name(kind: Any) -> str:
    """A type as a message names it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        if Ellipsis not in arguments:
            return f"a list of {len(arguments)} values"
        if arguments[0] in (int, float):
            return f"a list such as 1,4,16: each item is {type_name(arguments[0])}"
        return "a list of values"
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is Mapping:
        return "a mapping of names to values"
    return {int: "a whole number", float: "a number", str: "text", Path: "a path", bool: "true or false"}[
        kind
    ]
