"""Parquet without loss: columns of one type stay columns, everything else is JSON text.

Columns of JSON text, and columns whose nulls stand for fields that are not there, are marked as such in
the schema.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stepcredit.data.column_types import ColumnTypes, arrow_type
from stepcredit.data.rows import Malformed, NumberedRow, checked
from stepcredit.data.strict_json import parse_json
from stepcredit.errors import DataError

_JSON = {b"stepcredit.encoding": b"json"}
_SPARSE = {b"stepcredit.null": b"missing"}
_ROWS_A_BATCH = 1024


def read_parquet(path: Path) -> Iterator[NumberedRow]:
    """Stream the rows of a Parquet file, a batch at a time.

    Raises:
        DataError: Not a Parquet file, or it is damaged.
    """
    number = 0
    with _opened(path) as file:
        encoded = [field.name for field in file.schema_arrow if _is_marked(field, _JSON)]
        sparse = [field.name for field in file.schema_arrow if _is_marked(field, _SPARSE)]
        for batch in file.iter_batches(batch_size=_ROWS_A_BATCH):
            batch.validate(full=True)
            for row in batch.to_pylist():
                number += 1
                yield number, _decoded(row, encoded, sparse)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"not a Parquet file that can be read ({error})", where=path) from error


def _decoded(
    row: dict[str, Any], encoded: Iterable[str], sparse: Iterable[str]
) -> dict[str, Any] | Malformed:
    row = {name: value for name, value in row.items() if value is not None or name not in sparse}
    for name in encoded:
        if name in row:
            try:
                row[name] = parse_json(row[name])
            except (TypeError, ValueError) as error:
                return Malformed(f"column {name!r} is not JSON ({error})")
    return checked(row)


def count_parquet(path: Path) -> int:
    """How many rows the file has."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def _is_marked(field: Any, mark: Mapping[bytes, bytes]) -> bool:
    return bool(field.metadata) and all(field.metadata.get(key) == value for key, value in mark.items())


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], types: ColumnTypes) -> None:
    """Write rows a batch at a time."""
    import pyarrow
    import pyarrow.parquet

    arrow_types = {name: arrow_type(types.of(name)) for name in types.names}
    encoded = {name for name, kind in arrow_types.items() if kind is None}
    schema = pyarrow.schema(
        pyarrow.field(
            name,
            pyarrow.string() if kind is None else kind,
            metadata={**(_JSON if kind is None else {}), **(_SPARSE if types.is_sparse(name) else {})},
        )
        for name, kind in arrow_types.items()
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
