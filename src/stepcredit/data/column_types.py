"""The type of each column of a table, found from rows that stream past once.

A type is ``null``, ``string``, ``bool``, ``int64``, ``double``, a list of a type, or a struct of named types;
``json`` is everything that no column type holds without loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list; an empty one is of ``null``."""

    item: Kind


@dataclass(frozen=True, slots=True)
class Struct:
    """An object that always has the same fields."""

    fields: tuple[tuple[str, Kind], ...]


Kind = str | ListOf | Struct


class ColumnTypes:
    """Finds each column's type from rows that stream past once."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}
        self._num_present: dict[str, int] = {}
        self._with_nulls: set[str] = set()
        self._num_rows = 0

    def see(self, row: Mapping[str, Any]) -> None:
        """Take note of one row."""
        self._num_rows += 1
        for name, value in row.items():
            kind = _kind(value)
            before = self._kinds.get(name, "null")
            if kind != before:
                kind = _merged(before, kind)
            self._kinds[name] = kind
            self._num_present[name] = self._num_present.get(name, 0) + 1
            if value is None:
                self._with_nulls.add(name)

    def of(self, name: str) -> Kind:
        """Type of a column's values; ``json`` also where some rows have a null and others lack the field."""
        return "json" if self.is_sparse(name) and name in self._with_nulls else self._kinds[name]

    def is_sparse(self, name: str) -> bool:
        """Whether some rows lack the field."""
        return self._num_present[name] < self._num_rows

    @property
    def names(self) -> tuple[str, ...]:
        """Columns in the order in which they were first seen."""
        return tuple(self._kinds)


def _kind(value: Any) -> Kind:
    if value is None:
        return "null"
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -(2**63) <= value < 2**63 else "json"
    if isinstance(value, float):
        return "double"
    if isinstance(value, list):
        nothing: Kind = "null"
        item = reduce(_merged, map(_kind, value), nothing)
        return "json" if item == "json" else ListOf(item)
    if isinstance(value, dict) and value:
        fields = tuple((name, _kind(inner)) for name, inner in value.items())
        return "json" if any(kind == "json" for _, kind in fields) else Struct(fields)
    return "json"


def _merged(one: Kind, other: Kind) -> Kind:
    """The type that holds values of both without loss; a null fits everywhere."""
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if isinstance(one, ListOf) and isinstance(other, ListOf):
        item = _merged(one.item, other.item)
        return "json" if item == "json" else ListOf(item)
    if isinstance(one, Struct) and isinstance(other, Struct):
        kinds = dict(other.fields)
        if len(kinds) != len(one.fields) or any(name not in kinds for name, _ in one.fields):
            return "json"
        fields = tuple((name, _merged(kind, kinds[name])) for name, kind in one.fields)
        return "json" if any(kind == "json" for _, kind in fields) else Struct(fields)
    return "json"


def arrow_type(kind: Kind) -> Any:
    """The Arrow type of a column; ``None`` for ``json``."""
    import pyarrow

    if kind == "json":
        return None
    if isinstance(kind, ListOf):
        return pyarrow.list_(arrow_type(kind.item))
    if isinstance(kind, Struct):
        return pyarrow.struct([pyarrow.field(name, arrow_type(inner)) for name, inner in kind.fields])
    plain = {"string": pyarrow.string(), "int64": pyarrow.int64(), "double": pyarrow.float64()}
    plain |= {"bool": pyarrow.bool_(), "null": pyarrow.string()}
    return plain[kind]
