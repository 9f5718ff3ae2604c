"""Reading any source in any format: files and hub data sets, ours and those of other tools."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepcredit.data.files import Records
from stepcredit.data.foreign import Reader, named_format
from stepcredit.data.foreign.rows import prompt_name
from stepcredit.data.hub import PREFIX, read_hub
from stepcredit.data.sources import Malformed, NumberedRow, check_readable, read_rows
from stepcredit.errors import DataError, UserError
from stepcredit.types import Rollout


def read_as(
    source: str | Path,
    format: str = "rollouts",
    *,
    columns: Mapping[str, str] | None = None,
    subset: str | None = None,
    name_rows: bool = False,
    skip_invalid: bool = False,
) -> Records[Any]:
    """Stream the records of a source.

    Args:
        source: A file, or ``hub:NAME[:SPLIT]``.
        format: One of :data:`stepcredit.data.foreign.FORMATS`; ``prompts`` yields prompts, all others
            rollouts.
        columns: Field of the format to the source's column that holds it.
        subset: Configuration of a hub data set.
        name_rows: Give prompts and rollouts that lack them an id, the row's position, and a prompt id,
            a hash of the prompt; otherwise they are malformed.
        skip_invalid: As for :class:`~stepcredit.data.files.Records`.

    Raises:
        DataError: The source cannot be read, or a row is malformed.
        UserError: There is no such format.
    """
    form = named_format(format)
    rows = _row_source(source, subset, columns or {})
    reader = form.make_reader()
    if name_rows and form.name in ("prompts", "rollouts"):
        reader = _naming(reader)
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
        found = read_hub(str(source), subset) if is_hub else read_rows(source)
        return _renamed(found, columns, str(source)) if columns else found

    return rows


def _renamed(rows: Iterator[NumberedRow], columns: Mapping[str, str], source: str) -> Iterator[NumberedRow]:
    """Rows with each mapped column under the field's name; a column that had this name is dropped."""
    taken = set(columns.values())
    for number, row in rows:
        if isinstance(row, Malformed):
            yield number, row
            continue
        if missing := taken - row.keys():
            raise DataError(
                f"there is no column {min(missing)!r}; there are {', '.join(map(str, row))}",
                where=f"{source}:{number}",
                hint="hint --column",
            )
        kept = {name: value for name, value in row.items() if name not in taken and name not in columns}
        yield number, {**{field: _as_text(field, row[column]) for field, column in columns.items()}, **kept}


def _as_text(field: str, value: Any) -> Any:
    """Ids and answers that are numbers elsewhere are text in our records."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number and field in ("id", "prompt_id", "answer", "prediction") else value


def _naming(reader: Reader) -> Reader:
    def read(row: Mapping[str, Any], where: str, position: int) -> Iterable[Any]:
        named = {**row, "id": str(position) if row.get("id") is None else row["id"]}
        if (
            named.get("prompt_id") is None
            and "response" in named
            and isinstance(named.get("prompt"), str | list)
        ):
            named["prompt_id"] = prompt_name(named["prompt"])
        return reader(named, where, position)

    return read


def _repeated(rows: Iterator[NumberedRow], field: str) -> set[int]:
    """Hashes of the ids that more than one row has."""
    seen: set[int] = set()
    repeated: set[int] = set()
    for _, row in rows:
        if isinstance(row, Malformed) or not isinstance(row.get(field), str | int):
            continue
        name = hash(str(row[field]))
        (repeated if name in seen else seen).add(name)
    return repeated


def _with_unique_ids(reader: Reader, repeated: set[int]) -> Reader:
    """A reader whose repeated ids are followed by the row's position in the file, from 0."""

    def read(row: Mapping[str, Any], where: str, position: int) -> Iterator[Rollout]:
        for rollout in reader(row, where, position):
            is_repeated = hash(rollout.id) in repeated
            yield replace(rollout, id=f"{rollout.id}/{position}") if is_repeated else rollout

    return read
