"""Parquet without loss: columns of one plain type stay columns, everything else is JSON text.

Columns of JSON text, and columns whose nulls stand for fields that are not there, are marked as such in
the schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.data.strict_json import check_encodable, parse_json
from stepcredit.errors import DataError

if TYPE_CHECKING:
    from stepcredit.data.sources import NumberedRow

_JSON = {b"stepcredit.encoding": b"json"}
_SPARSE = {b"stepcredit.null": b"missing"}
_ROWS_A_BATCH = 1024
_ID_FIELDS = ("id", "prompt_id", "answer")


def read_parquet(path: Path) -> Iterator[NumberedRow]:
    """Stream the rows of a Parquet file, a batch at a time.

    Whole numbers in ``id``, ``prompt_id`` and ``answer`` become text, as other tools store them so.

    Raises:
        DataError: Not a Parquet file, or a value that JSON cannot hold.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            encoded = [field.name for field in file.schema_arrow if _is_marked(field, _JSON)]
            sparse = [field.name for field in file.schema_arrow if _is_marked(field, _SPARSE)]
            for batch in file.iter_batches(batch_size=_ROWS_A_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    for name in sparse:
                        if row[name] is None:
                            del row[name]
                    for name in encoded:
                        if name in row:
                            row[name] = parse_json(row[name])
                    for name in _ID_FIELDS:
                        if type(row.get(name)) is int:
                            row[name] = str(row[name])
                    check_encodable(row)
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"not a Parquet file that can be read ({error})", where=path) from error
    except (TypeError, ValueError) as error:
        raise DataError(f"holds a value that JSON cannot ({error})", where=f"{path}, row {number}") from error


def count_parquet(path: Path) -> int:
    """How many rows the file has."""
    import pyarrow
    import pyarrow.parquet

    try:
        return int(pyarrow.parquet.ParquetFile(path).metadata.num_rows)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"not a Parquet file that can be read ({error})", where=path) from error


def _is_marked(field: Any, mark: Mapping[bytes, bytes]) -> bool:
    return bool(field.metadata) and all(field.metadata.get(key) == value for key, value in mark.items())


class ColumnTypes:
    """Finds each column's type from rows that stream past once.

    A column is ``string``, ``int64``, ``double``, ``bool``, ``list<int64>`` or ``list<string>`` where all
    its values are; otherwise, and where some rows have a null and others lack the field, it is ``json``.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, set[str]] = {}
        self._num_present: dict[str, int] = {}
        self._num_rows = 0

    def see(self, row: Mapping[str, Any]) -> None:
        """Take note of one row."""
        self._num_rows += 1
        for name, value in row.items():
            self._kinds.setdefault(name, set()).add(_kind(value))
            self._num_present[name] = self._num_present.get(name, 0) + 1

    def of(self, name: str) -> str:
        """Type of a column's values."""
        kinds = self._kinds[name]
        if self.is_sparse(name) and "null" in kinds:
            return "json"
        kinds = kinds - {"null"}
        if "empty list" in kinds and len(kinds) > 1:
            kinds = kinds - {"empty list"}
            return kinds.pop() if kinds in ({"list<int64>"}, {"list<string>"}) else "json"
        if not kinds:
            return "string"
        return kinds.pop() if len(kinds) == 1 and kinds != {"empty list"} else "json"

    def is_sparse(self, name: str) -> bool:
        """Whether some rows lack the field."""
        return self._num_present[name] < self._num_rows

    @property
    def names(self) -> tuple[str, ...]:
        """Columns in the order in which they were first seen."""
        return tuple(self._kinds)


def _kind(value: Any) -> str:
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
        if not value:
            return "empty list"
        kinds = {_kind(item) for item in value}
        if kinds in ({"int64"}, {"string"}):
            return f"list<{kinds.pop()}>"
    return "json"


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], types: ColumnTypes) -> None:
    """Write rows a batch at a time.

    Args:
        path: The file to write.
        rows: The rows.
        types: Has seen every one of the rows.
    """
    import pyarrow
    import pyarrow.parquet

    arrow_types = {
        "string": pyarrow.string(),
        "int64": pyarrow.int64(),
        "double": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "list<int64>": pyarrow.list_(pyarrow.int64()),
        "list<string>": pyarrow.list_(pyarrow.string()),
    }
    encoded = {name for name in types.names if types.of(name) == "json"}
    schema = pyarrow.schema(
        pyarrow.field(
            name,
            arrow_types["string" if name in encoded else types.of(name)],
            metadata={**(_JSON if name in encoded else {}), **(_SPARSE if types.is_sparse(name) else {})},
        )
        for name in types.names
    )
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []

        def flush() -> None:
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))
            batch.clear()

        for row in rows:
            batch.append(
                {name: _json_text(value) if name in encoded else value for name, value in row.items()}
            )
            if len(batch) == _ROWS_A_BATCH:
                flush()
        if batch:
            flush()


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
