"""Rows of JSON Lines and of JSON arrays, one at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from stepcredit.data.rows import Malformed, NumberedRow
from stepcredit.data.strict_json import DECODER, check_jsonable, parse_json
from stepcredit.errors import DataError

CHUNK_CHARACTERS = 1 << 20
_LONGEST_ROW_CHARACTERS = 1 << 28


def line_rows(handle: IO[bytes]) -> Iterator[NumberedRow]:
    """Rows of JSON Lines; blank lines are none."""
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


def starts_array(handle: IO[bytes]) -> bool:
    """Whether the first character that is no blank opens an array; nothing is consumed."""
    assert isinstance(handle, io.BufferedReader)
    start = handle.peek(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return start.startswith(b"[")


class ArrayReader:
    """Decodes one element of a JSON array at a time, holding little more than that element."""

    def __init__(self, handle: IO[bytes], path: Path) -> None:
        self._text = io.TextIOWrapper(handle, encoding="utf-8-sig")
        self._path = path
        self._buffer, self._ended, self._number = "", False, 0

    def rows(self) -> Iterator[NumberedRow]:
        """The elements, numbered from 1.

        Raises:
            DataError: The array is damaged; what follows the damage cannot be read.
        """
        self._drop("[", "the array is not opened")
        while self._next() != "]":
            if self._number:
                self._drop(",", "a comma is missing before the row")
            row = self._element()
            self._number += 1
            yield self._number, _row_or_problem(row)
        if (self._buffer[1:] + self._text.read(4096)).strip():
            raise self._fail("something follows the end of the array")

    def _fail(self, problem: str) -> DataError:
        return DataError(
            problem, where=f"{self._path}, row {self._number + 1}", hint="correct the JSON array"
        )

    def _next(self) -> str:
        """The next character that is no blank, not consumed."""
        self._buffer = self._buffer.lstrip()
        while not self._buffer:
            if self._ended:
                raise self._fail("the array is not closed")
            self._read_on()
            self._buffer = self._buffer.lstrip()
        return self._buffer[0]

    def _drop(self, character: str, problem: str) -> None:
        if self._next() != character:
            raise self._fail(problem)
        self._buffer = self._buffer[1:]

    def _read_on(self) -> None:
        try:
            # Twice as much each time, so that a long row is decoded a few times only.
            piece = self._text.read(max(CHUNK_CHARACTERS, len(self._buffer)))
        except UnicodeDecodeError as error:
            raise self._fail("not valid UTF-8") from error
        self._buffer, self._ended = self._buffer + piece, not piece
        if len(self._buffer) > _LONGEST_ROW_CHARACTERS:
            raise self._fail("a row does not end")

    def _element(self) -> Any:
        self._next()
        while True:
            try:
                row, end = DECODER.raw_decode(self._buffer)
            except RecursionError as error:
                raise self._fail("nested too deeply") from error
            except ValueError as error:
                if self._ended or not _may_be_cut(error, len(self._buffer)):
                    raise self._fail(_reason(error)) from error
            else:
                # A number that ends with the buffer may go on.
                if self._ended or end < len(self._buffer):
                    self._buffer = self._buffer[end:]
                    return row
            self._read_on()


def _row_or_problem(row: Any) -> dict[str, Any] | Malformed:
    try:
        check_jsonable(row)
    except ValueError as error:
        return Malformed(_reason(error))
    return row if isinstance(row, dict) else Malformed("the row must be a JSON object")


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        what = error.msg.removesuffix(" at")  # Python's own messages end in it now and then
        return f"not valid JSON ({what} at column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return f"not valid UTF-8 (byte {error.start + 1} of the line)"
    return f"not valid JSON ({error})"


def _may_be_cut(error: Exception, length: int) -> bool:
    """Whether decoding may have failed only because the buffer ends inside the element."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos >= length - 16
