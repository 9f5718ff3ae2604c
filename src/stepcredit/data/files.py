"""Reading and writing files of records: streaming, exactly checked, never half-written."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from stepcredit.data.cells import row_to_cells
from stepcredit.data.column_types import ColumnTypes
from stepcredit.data.parquet import write_parquet
from stepcredit.data.records import prompt_from_json, rollout_from_json
from stepcredit.data.rows import Malformed, NumberedRow
from stepcredit.data.scores import score_from_json
from stepcredit.data.sources import check_readable, file_kind, read_rows
from stepcredit.data.strict_json import to_line
from stepcredit.errors import DataError
from stepcredit.runs import atomic_path, warn
from stepcredit.types import Prompt, ResponseScore, Rollout
from stepcredit.wording import agree, quantity

Record = TypeVar("Record", bound=Prompt | Rollout | ResponseScore)


class UniqueIds:
    """Refuses an id that was there before, keeping 64-bit hashes only (about 70 bytes an id)."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def add(self, name: str, where: str) -> None:
        """Take note of an id.

        Raises:
            DataError: It was there before.
        """
        before = len(self._seen)
        self._seen.add(hash(name))
        if len(self._seen) == before:
            raise DataError(
                f"the id {name!r} appears twice", where=where, hint="make ids unique within the file"
            )


class Records(Iterator[Record], Generic[Record]):
    """The records of a source, one after another.

    Args:
        source: What the rows come from, for messages: a file or a data set's name.
        parse: Turns a row, its place (``source:number``) and its position from 0 into records, or raises
            :class:`DataError`.
        skip_invalid: Skip rows that are malformed, or whose id was there before, and count them;
            otherwise the first one raises.

    Attributes:
        num_skipped: Rows skipped so far.
        first_skipped: What was wrong with the first one.
        unclear_ends: Finish reasons that say neither that a response is whole nor that it was cut off, with
            the number of rows that have them; a warning says so at the end.

    Raises:
        DataError: The source cannot be read; or a row is malformed or its id appears twice.
    """

    def __init__(
        self,
        source: str | Path,
        rows: Iterable[NumberedRow],
        parse: Callable[[Mapping[str, Any], str, int], Iterable[Record]],
        *,
        skip_invalid: bool = False,
    ) -> None:
        self.source = str(source)
        self.num_skipped = 0
        self.first_skipped: str | None = None
        self.unclear_ends: Counter[str] = Counter()
        self._skip_invalid = skip_invalid
        self._records = self._stream(rows, parse)

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        return next(self._records)

    def _stream(
        self, rows: Iterable[NumberedRow], parse: Callable[[Mapping[str, Any], str, int], Iterable[Record]]
    ) -> Iterator[Record]:
        ids = UniqueIds()
        for position, (number, row) in enumerate(rows):
            where = f"{self.source}:{number}"
            try:
                if isinstance(row, Malformed):
                    raise DataError(row.problem, where=where, hint=row.hint)
                records = tuple(parse(row, where, position))
                for record in records:
                    ids.add(record.id, where)
                    self._note_end(row, record)
            except DataError as error:
                if not self._skip_invalid:
                    raise
                self.num_skipped += 1
                self.first_skipped = self.first_skipped or str(error)
                continue
            yield from records
        if self.unclear_ends:
            warn_once(f"{self.source}: {_unclear_text(self.unclear_ends)}")

    def _note_end(self, row: Mapping[str, Any], record: Record) -> None:
        reason = row.get("finish_reason")
        if reason is not None and isinstance(record, Rollout) and record.finish_reason is None:
            self.unclear_ends[str(reason)] += 1


def _unclear_text(ends: Counter[str]) -> str:
    reasons = ", ".join(f"{reason!r} ({count:,})" for reason, count in ends.most_common())
    number = sum(ends.values())
    return (
        f'{quantity(number, "response")} {agree(number, "ends", "end")} for a reason other than "stop" or '
        f'"length", which is read as null: {reasons}'
    )


@cache
def warn_once(message: str) -> None:
    """:func:`~stepcredit.runs.warn`, once per process: some commands read a file twice."""
    warn(message)


def _read(
    path: str | Path, parse: Callable[[Mapping[str, Any], str, int], Record], skip_invalid: bool
) -> Records[Record]:
    path = check_readable(path)
    return Records(
        path,
        read_rows(path),
        lambda row, where, position: (parse(row, where, position),),
        skip_invalid=skip_invalid,
    )


def read_prompts(path: str | Path, *, skip_invalid: bool = False) -> Records[Prompt]:
    """Stream a file of prompts; see :class:`Records`."""
    return _read(path, prompt_from_json, skip_invalid)


def read_rollouts(path: str | Path, *, skip_invalid: bool = False) -> Records[Rollout]:
    """Stream a file of rollouts; see :class:`Records`."""
    return _read(path, rollout_from_json, skip_invalid)


def read_scores(path: str | Path, *, skip_invalid: bool = False) -> Records[ResponseScore]:
    """Stream a file of scores; see :class:`Records`."""
    return _read(path, lambda row, where, _position: score_from_json(row, where), skip_invalid)


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows atomically in the format that the extension names.

    JSON Lines, JSON arrays and Parquet hold everything. CSV does not tell a missing extra from an empty
    one, and makes text of extras that are not.

    Returns:
        How many rows were written.

    Raises:
        DataError: The extension is not known.
        ValueError: A row holds NaN or an infinity.
    """
    path = Path(path)
    file_kind(path)
    with atomic_path(path) as temporary:
        return write_rows_into(temporary, path, rows)


def finish_lines(path: str | Path) -> Callable[[Path, Path], int] | None:
    """What turns finished JSON Lines into the format of ``path``, for ``ResumableLines.commit``.

    Returns:
        A function of (JSON Lines file, file to write) that returns how many rows there are, or ``None``
        where nothing needs to be done.
    """
    path = Path(path)
    if file_kind(path) == "jsonl" and not _is_gzip(path):
        return None

    def finalise(lines: Path, temporary: Path) -> int:
        with open(lines, "rb") as handle:
            return write_rows_into(temporary, path, _lines(handle))

    return finalise


def _lines(handle: IO[bytes]) -> Iterator[dict[str, Any]]:
    for line in handle:
        yield json.loads(line)


def _is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


@contextlib.contextmanager
def _opened(final: Path, temporary: Path) -> Iterator[IO[bytes]]:
    with open(temporary, "wb") as handle:
        if _is_gzip(final):
            with gzip.GzipFile(fileobj=handle, filename="", mode="wb", compresslevel=6, mtime=0) as packed:
                buffered = io.BufferedWriter(packed, 1 << 16)
                yield buffered
                buffered.flush()
        else:
            yield handle


def write_rows_into(temporary: Path, final: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows to ``temporary`` in the format that ``final``'s extension names; see :func:`write_rows`."""
    kind = file_kind(final)
    if kind in ("parquet", "csv"):
        return _write_table(kind, final, temporary, rows)
    count = 0
    with _opened(final, temporary) as handle:
        if kind == "json":
            handle.write(b"[\n")
        for row in rows:
            line = to_line(dict(row))
            handle.write(line if kind == "jsonl" else (b",\n" if count else b"") + line[:-1])
            count += 1
        if kind == "json":
            handle.write(b"\n]\n")
    return count


def _write_table(kind: str, final: Path, temporary: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Parquet and CSV need all columns before the first row, so rows wait in a JSON Lines file."""
    types, count = ColumnTypes(), 0
    with tempfile.TemporaryFile(dir=temporary.parent) as waiting:
        for row in rows:
            types.see(row)
            waiting.write(to_line(dict(row)))
            count += 1
        waiting.seek(0)
        if kind == "parquet":
            write_parquet(temporary, _lines(waiting), types)
        else:
            with _opened(final, temporary) as handle:
                _write_csv(handle, _lines(waiting), types.names)
    return count


class _Lines:
    """Where the csv module writes rows that end in CR LF: they end in LF alone."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text

    def write(self, line: str) -> None:
        self._text.write(line.removesuffix("\r\n") + "\n")


def _write_csv(handle: IO[bytes], rows: Iterable[Mapping[str, Any]], names: tuple[str, ...]) -> None:
    text = io.TextIOWrapper(handle, encoding="utf-8", newline="")
    # Python before 3.13 quotes a carriage return only where it is part of the line's end.
    writer = csv.DictWriter(_Lines(text), names, restval="", lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row_to_cells(row))
    text.flush()
    text.detach()
