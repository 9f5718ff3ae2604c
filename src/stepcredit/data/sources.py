"""Files as streams of numbered rows: JSON Lines, JSON arrays, CSV and Parquet, and folders of ``datasets``.

A row that cannot be read is yielded as :class:`~stepcredit.data.rows.Malformed`; what makes the rest of a
file unreadable raises.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from stepcredit.data import arrow_folder
from stepcredit.data.cells import cells_to_row
from stepcredit.data.json_rows import ArrayReader, line_rows, starts_array
from stepcredit.data.rows import Malformed, NumberedRow
from stepcredit.errors import DataError
from stepcredit.wording import quantity

EXTENSIONS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")


def file_kind(path: str | Path) -> str:
    """Which of ``jsonl``, ``json``, ``csv`` and ``parquet`` a file is, by its name.

    Raises:
        DataError: The extension is none of :data:`EXTENSIONS`.
    """
    name = Path(path).name.lower()
    for extension in EXTENSIONS:
        if name.endswith(extension):
            return extension.removesuffix(".gz").lstrip(".")
    raise DataError("the extension is not known", where=path, hint=f"use one of {', '.join(EXTENSIONS)}")


def check_readable(path: str | Path) -> Path:
    """The path, if it is a file that can be read, or a folder that ``save_to_disk`` wrote.

    Raises:
        DataError: It is missing, another folder or not readable, or its extension is not known.
    """
    path = Path(path)
    if path.is_dir():
        return arrow_folder.check_folder(path)
    if not path.exists():
        raise DataError("no such file", where=path, hint="check the path")
    file_kind(path)
    try:
        path.open("rb").close()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path) from error
    return path


def read_rows(path: str | Path) -> Iterator[NumberedRow]:
    """Stream a file's rows; memory does not grow with the file.

    Raises:
        DataError: The file is missing or damaged beyond a single row.
    """
    path = check_readable(path)
    if path.is_dir():
        yield from arrow_folder.read_folder(path)
        return
    kind = file_kind(path)
    if kind == "parquet":
        from stepcredit.data.parquet import read_parquet

        yield from read_parquet(path)
        return
    try:
        with _opened(path) as handle:
            if kind == "csv":
                yield from _csv_rows(handle, path)
            elif kind == "json" and starts_array(handle):
                yield from ArrayReader(handle, path).rows()
            else:
                yield from line_rows(handle)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"damaged gzip file ({error})", where=path, hint="make or copy it again") from error


def _opened(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return io.BufferedReader(gzip.open(path, "rb"))
    return open(path, "rb")


def _csv_rows(handle: IO[bytes], path: Path) -> Iterator[NumberedRow]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader(io.TextIOWrapper(handle, encoding="utf-8-sig", newline=""), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError("the file is empty; its first line must name the columns", where=path)
        if len(set(header)) < len(header):
            raise DataError("a column name appears twice", where=f"{path}:1")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                yield (
                    reader.line_num,
                    Malformed(f"{quantity(len(cells), 'cell')}, but the header names {len(header)}"),
                )
            else:
                yield reader.line_num, cells_to_row(dict(zip(header, cells, strict=True)))
    except UnicodeDecodeError as error:
        raise DataError("not valid UTF-8", where=f"{path}:{reader.line_num + 1}") from error
    except csv.Error as error:
        raise DataError(f"not valid CSV ({error})", where=f"{path}:{reader.line_num}") from error


def count_rows(path: str | Path) -> int | None:
    """How many rows a JSON Lines or Parquet file has, cheaply; ``None`` where that needs parsing."""
    path = check_readable(path)
    if path.is_dir():
        return arrow_folder.count_folder(path)
    kind = file_kind(path)
    if kind == "parquet":
        from stepcredit.data.parquet import count_parquet

        return count_parquet(path)
    if kind != "jsonl":
        return None
    lines, last = 0, b"\n"
    with contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile), _opened(path) as handle:
        while chunk := handle.read(1 << 20):
            lines += chunk.count(b"\n")
            last = chunk[-1:]
        return lines + (last != b"\n")
    return None
