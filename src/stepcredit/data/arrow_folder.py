"""Folders that ``datasets`` wrote with ``save_to_disk``: Arrow files beside ``state.json``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.data.rows import NumberedRow, checked
from stepcredit.data.strict_json import parse_json
from stepcredit.errors import DataError
from stepcredit.wording import quantity

if TYPE_CHECKING:
    import pyarrow

_STATE = "state.json"
_SPLITS = "dataset_dict.json"
_ROWS_A_BATCH = 1024


def check_folder(path: Path) -> Path:
    """The folder of one data set: the path itself, or its split where it has only one.

    Raises:
        DataError: It holds no data set, or several splits.
    """
    if (path / _STATE).is_file():
        return path
    if not (path / _SPLITS).is_file():
        raise DataError(
            "is a folder, not a file",
            where=path,
            hint="name a file inside it, or a folder that save_to_disk of datasets wrote",
        )
    splits = _content(path / _SPLITS, "splits")
    if len(splits) == 1:
        return check_folder(path / str(splits[0]))
    names = ", ".join(str(path / str(split)) for split in splits)
    raise DataError(f"holds {quantity(len(splits), 'split')}", where=path, hint=f"name one of them: {names}")


def read_folder(path: Path) -> Iterator[NumberedRow]:
    """Stream the rows of a data set's folder, as :func:`check_folder` gives it.

    Raises:
        DataError: A file of it is missing or damaged.
    """
    number = 0
    for file in _files(path):
        with _opened(file) as batches:
            for batch in batches:
                batch.validate(full=True)
                for start in range(0, batch.num_rows, _ROWS_A_BATCH):
                    for row in batch.slice(start, _ROWS_A_BATCH).to_pylist():
                        number += 1
                        yield number, checked(row)


def count_folder(path: Path) -> int:
    """How many rows the data set has."""
    total = 0
    for file in _files(path):
        with _opened(file) as batches:
            total += sum(batch.num_rows for batch in batches)
    return total


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[pyarrow.RecordBatchStreamReader]:
    import pyarrow
    import pyarrow.ipc

    try:
        with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as batches:
            yield batches
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"not an Arrow file that can be read ({error})", where=file) from error


def _files(path: Path) -> Iterator[Path]:
    for entry in _content(path / _STATE, "_data_files"):
        name = entry.get("filename") if isinstance(entry, dict) else None
        # The files are those of the folder itself, whatever its state says.
        if not isinstance(name, str) or (path / name).parent != path:
            raise DataError("does not name its files", where=path / _STATE, hint="save the data set again")
        yield path / name


def _content(file: Path, field: str) -> list[Any]:
    try:
        content = parse_json(file.read_bytes())[field]
    except (OSError, ValueError, KeyError, TypeError):
        content = None
    if not isinstance(content, list):
        raise DataError(f"has no list {field!r}", where=file, hint="save the data set again")
    return content
