"""Reading any source in any format: files and hub data sets, ours and those of other tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepcredit.data.fields import name_field
from stepcredit.data.files import Records
from stepcredit.data.foreign import Reader, named_format
from stepcredit.data.hub import PREFIX, read_hub
from stepcredit.data.rows import Malformed, NumberedRow
from stepcredit.data.sources import check_readable, read_rows
from stepcredit.errors import DataError, UserError
from stepcredit.types import Rollout


def read_as(
    source: str | Path,
    format: str = "rollouts",
    *,
    columns: Mapping[str, str] | None = None,
    subset: str | None = None,
    skip_invalid: bool = False,
) -> Records[Any]:
    """Stream the records of a source.

    Rows of prompts and rollouts without an id get one, see :func:`~stepcredit.data.messages.row_name`.

    Args:
        source: A file, or ``hub:NAME[:SPLIT]``.
        format: One of :data:`stepcredit.data.foreign.FORMATS`; ``prompts`` yields prompts, all others
            rollouts.
        columns: Field of the format to the source's column that holds it; dots lead into objects
            (``reward_model.ground_truth``).
        subset: Configuration of a hub data set.
        skip_invalid: As for :class:`~stepcredit.data.files.Records`.

    Raises:
        DataError: The source cannot be read, or a row is malformed.
        UserError: There is no such format.
    """
    form = named_format(format)
    rows = _row_source(source, subset, columns or {})
    reader = form.make_reader()
    if form.id_field is not None:
        reader = _with_unique_ids(reader, _repeated(rows(), form.id_field))
    return Records(source, rows(), reader, skip_invalid=skip_invalid)


def read_rollouts_as(source: str | Path, format: str = "rollouts", **options: Any) -> Records[Rollout]:
    """:func:`read_as` with a format of rollouts."""
    if named_format(format).holds_prompts:
        raise UserError("holds prompts, not rollouts", where=f"--format {format}")
    return read_as(source, format, **options)


def parse_columns(mappings: tuple[str, ...]) -> dict[str, str]:
    """Read ``FIELD=COLUMN`` as the command line writes it.

    Raises:
        UserError: There is no equals sign, or a field is named twice.
    """
    columns: dict[str, str] = {}
    for mapping in mappings:
        field, equals, column = mapping.partition("=")
        if not equals or not field or not column:
            raise UserError(f"{mapping!r} is not FIELD=COLUMN", where="--column")
        if field in columns:
            raise UserError(f"the field {field!r} is mapped twice", where="--column")
        columns[field] = column
    return columns


def _row_source(
    source: str | Path, subset: str | None, columns: Mapping[str, str]
) -> Callable[[], Iterator[NumberedRow]]:
    is_hub = isinstance(source, str) and source.startswith(PREFIX)
    if not is_hub:
        if subset is not None:
            raise UserError("is only for data sets of the hub", where="--subset")
        check_readable(source)

    def rows() -> Iterator[NumberedRow]:
        plain = read_hub(str(source), subset) if is_hub else read_rows(source)
        return _renamed(plain, columns) if columns else plain

    return rows


def _renamed(rows: Iterator[NumberedRow], columns: Mapping[str, str]) -> Iterator[NumberedRow]:
    """Rows with each mapped column under the field's name; a column that had this name is dropped.

    An object that a column is taken from stays as it is.
    """
    moved = {*columns.values(), *columns}
    for number, row in rows:
        if isinstance(row, Malformed):
            yield number, row
            continue
        try:
            mapped = {field: _column(row, column) for field, column in columns.items()}
        except KeyError as error:
            yield number, Malformed(error.args[0], hint="correct --column")
            continue
        yield number, mapped | {name: value for name, value in row.items() if name not in moved}


def _column(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, whose name may lead into objects by dots.

    Raises:
        KeyError: There is none; the message says what there is.
    """
    if column in row:
        return row[column]
    name, dot, rest = column.partition(".")
    inner = row.get(name)
    if dot and isinstance(inner, dict):
        return _column(inner, rest)
    raise KeyError(f"there is no column {column!r}; there are {', '.join(map(str, row))}")


def _repeated(rows: Iterator[NumberedRow], field: str) -> set[int]:
    """Hashes of the ids that more than one row has."""
    seen: set[int] = set()
    repeated: set[int] = set()
    for _, row in rows:
        if isinstance(row, Malformed):
            continue
        try:
            name = hash(name_field({field: _column(row, field)}, field, ""))
        except (DataError, KeyError):
            continue  # The reader names it, where it must be there.
        (repeated if name in seen else seen).add(name)
    return repeated


def _with_unique_ids(reader: Reader, repeated: set[int]) -> Reader:
    """A reader whose repeated ids are followed by the row's position in the file, from 0."""

    def read(row: Mapping[str, Any], where: str, position: int) -> Iterator[Any]:
        for record in reader(row, where, position):
            is_repeated = hash(record.id) in repeated
            yield replace(record, id=f"{record.id}/{position}") if is_repeated else record

    return read
