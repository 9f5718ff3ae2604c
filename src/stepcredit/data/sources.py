"""Files as streams of numbered rows: JSON Lines, JSON arrays, CSV and Parquet, chosen by extension.

A row that cannot be read is yielded as :class:`Malformed`, so that the caller decides whether it ends the
run or is skipped. What makes the rest of a file unreadable raises.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stepcredit.data.cells import cells_to_row
from stepcredit.data.strict_json import DECODER, check_encodable, parse_json
from stepcredit.errors import DataError

EXTENSIONS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")
_CHUNK_CHARACTERS = 1 << 20
_LONGEST_ROW_CHARACTERS = 1 << 28


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that cannot be read, why, and what can be done."""

    problem: str
    hint: str = "correct the row, or pass --skip-invalid"


NumberedRow = tuple[int, dict[str, Any] | Malformed]
"""The row's line in the file (for Parquet and JSON arrays: which row it is), from 1, and its fields."""


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
    """The path, if it is a file that can be read.

    Raises:
        DataError: It is missing, not a file or not readable, or its extension is not known.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError("is a folder, not a file", where=path, hint="name a file inside it")
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
    kind = file_kind(path)
    if kind == "parquet":
        from stepcredit.data.parquet import read_parquet

        yield from read_parquet(path)
        return
    try:
        with _opened(path) as handle:
            if kind == "csv":
                yield from _csv_rows(handle, path)
            elif kind == "json" and _starts_array(handle):
                yield from _array_rows(handle, path)
            else:
                yield from _line_rows(handle)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"damaged gzip file ({error})", where=path, hint="make or copy it again") from error


def _opened(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return io.BufferedReader(gzip.open(path, "rb"))
    return open(path, "rb")


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg} at column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"not valid UTF-8 (byte {error.start + 1} of the line)"
    return f"not valid JSON ({error})"


def _line_rows(handle: IO[bytes]) -> Iterator[NumberedRow]:
    for number, line in enumerate(handle, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.isspace() or not line:
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            yield number, Malformed(_reason(error))
            continue
        yield number, row if isinstance(row, dict) else Malformed("the line must be a JSON object")


def _starts_array(handle: IO[bytes]) -> bool:
    assert isinstance(handle, io.BufferedReader)
    start = handle.peek(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return start.startswith(b"[")


def _array_rows(handle: IO[bytes], path: Path) -> Iterator[NumberedRow]:
    """Decode one element of a JSON array at a time, holding little more than that element."""
    text = io.TextIOWrapper(handle, encoding="utf-8-sig")
    buffer, ended, number, first = "", False, 0, True

    def fail(problem: str) -> DataError:
        return DataError(problem, where=f"{path}, row {number + 1}", hint="hint the JSON array")

    def more() -> None:
        nonlocal buffer, ended
        try:
            piece = text.read(max(_CHUNK_CHARACTERS, len(buffer)))
        except UnicodeDecodeError as error:
            raise fail("not valid UTF-8") from error
        buffer, ended = buffer + piece, not piece
        if len(buffer) > _LONGEST_ROW_CHARACTERS:
            raise fail("a row does not end")

    while True:
        buffer = buffer.lstrip()
        if not buffer and not ended:
            more()
            continue
        if not buffer:
            raise fail("the array is not closed")
        if first:
            buffer, first = buffer[1:], False
            element_first = True
            continue
        if buffer[0] == "]":
            if (buffer[1:] + text.read(4096)).strip():
                raise fail("something follows the end of the array")
            return
        if not element_first:
            if buffer[0] != ",":
                raise fail("a comma is missing before the row")
            stripped = buffer[1:].lstrip()
            if not stripped and not ended:
                more()
                continue
            buffer = stripped
        while True:
            try:
                row, end = DECODER.raw_decode(buffer)
                check_encodable(row)
                break
            except (ValueError, RecursionError) as error:
                if ended or not _may_be_cut(error, len(buffer)):
                    raise fail(
                        _reason(error) if isinstance(error, ValueError) else "nested too deeply"
                    ) from error
                more()
        number, element_first = number + 1, False
        buffer = buffer[end:]
        yield number, row if isinstance(row, dict) else Malformed("the row must be a JSON object")


def _may_be_cut(error: Exception, length: int) -> bool:
    """Whether decoding may have failed only because the buffer ends inside the element."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos >= length - 16


def _csv_rows(handle: IO[bytes], path: Path) -> Iterator[NumberedRow]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader(io.TextIOWrapper(handle, encoding="utf-8-sig", newline=""), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError("the file is empty; its first line must name the columns", where=path)
        if len(set(header)) < len(header):
            raise DataError("a column name is there twice", where=f"{path}:1")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                yield reader.line_num, Malformed(f"{len(cells)} cells, but the header names {len(header)}")
            else:
                yield reader.line_num, cells_to_row(dict(zip(header, cells, strict=True)))
    except UnicodeDecodeError as error:
        raise DataError("not valid UTF-8", where=f"{path}:{reader.line_num + 1}") from error
    except csv.Error as error:
        raise DataError(f"not valid CSV ({error})", where=f"{path}:{reader.line_num}") from error


def count_rows(path: str | Path) -> int | None:
    """How many rows a JSON Lines or Parquet file has, cheaply; ``None`` where that needs parsing."""
    path = check_readable(path)
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
