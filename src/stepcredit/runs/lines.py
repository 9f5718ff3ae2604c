"""Long outputs that go on where they were: rows that grow in ``<name>.partial`` until they are all there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from stepcredit.errors import UserError
from stepcredit.runs.locks import locked
from stepcredit.runs.manifest import Manifest, describe, manifest_path, read_manifest
from stepcredit.runs.outputs import atomic_path, check_is_no_folder, check_output, write_json
from stepcredit.wording import quantity

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_SYNC_SECONDS = 1.0
_START_ANEW = "pass --overwrite to start over"


class ResumableLines:
    """A JSON Lines output that grows durably and survives being killed at any moment.

    Typical use::

        with ResumableLines(out, manifest, overwrite=False) as lines:
            if lines.complete:
                return
            done = {row["id"] for row in lines.rows()}
            for row in work(skip=done):
                lines.append(row)
            lines.commit()

    The output is locked while the context lasts. A command whose rows depend on how its work was cut into
    pieces calls :meth:`checkpoint` after each piece; a later run then goes on from the last whole piece.

    Args:
        manifest: Identifies the work; a partial file of other work is refused.
        key: Fields that identify a row; no two rows may have the same values in them.
        in_pieces: Go on from checkpoints only.
        beside: Further files that ``finalise`` writes, in the same folder; they are a part of the output.

    Attributes:
        complete: The finished file is there, made by this very work, and as it was written.
        num_rows: Rows so far, those of earlier runs included.
        state: What the last checkpoint of an earlier run said; empty without one.

    Raises:
        UserError: ``path`` is a folder. On entering: another process is writing it, it holds something
            else, or what an earlier run left of it is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        manifest: Manifest,
        *,
        overwrite: bool = False,
        key: tuple[str, ...] = ("id",),
        in_pieces: bool = False,
        beside: Sequence[Path] = (),
    ) -> None:
        self.path = Path(path)
        check_is_no_folder(self.path)
        self.manifest = manifest
        self.partial = self.path.with_name(self.path.name + ".partial")
        self.complete = False
        self.num_rows = 0
        self.state: dict[str, Any] = {}
        self._stamp = self.path.with_name(self.path.name + ".partial.settings")
        self._overwrite, self._key, self._in_pieces = overwrite, key, in_pieces
        self._beside = tuple(beside)
        self._keys: set[int] = set()
        self._handle: IO[bytes] | None = None
        self._last_sync = self._last_checkpoint = 0.0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.enter_context(locked(self.path))
            self._open()
            self._stack.callback(self._end)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _end(self) -> None:
        self._close()
        if not self.complete and not self.num_rows:
            self.discard()

    def _open(self) -> None:
        stamp = self._read_stamp()
        if self._overwrite or not self.partial.exists() or not self.partial.stat().st_size:
            self.discard()
        elif not self.manifest.is_of(stamp.get("settings_hash"), self.partial):
            raise UserError(
                "holds the start of a run with other settings or inputs",
                where=self.partial,
                hint=f"run with the earlier settings to continue, or {_START_ANEW}",
            )
        # What is left of this very work was cut before or while it was finished, so it goes on, also if a
        # finished file is there.
        resumes = self.partial.exists() and self._is_of_this_work()
        if not resumes:
            self.complete = check_output(self.path, self.manifest, overwrite=self._overwrite)
        if self.complete:
            self.discard()
        else:
            self._go_on(stamp)

    def _is_of_this_work(self) -> bool:
        earlier = read_manifest(self.path) if self.path.exists() else None
        return not self.path.exists() or (
            earlier is not None and self.manifest.is_of(earlier.get("settings_hash"), self.path)
        )

    def _read_stamp(self) -> dict[str, Any]:
        try:
            text = self._stamp.read_text(encoding="utf-8")
            content = json.loads(text)
        except (OSError, UnicodeDecodeError, RecursionError):
            return {}
        except json.JSONDecodeError:  # of a version that knew no checkpoints
            return {"settings_hash": text.strip()}
        return content if isinstance(content, dict) else {}

    def _write_stamp(self, **content: Any) -> None:
        stamp = {"settings_hash": self.manifest.settings_hash, **content}
        write_json(self._stamp, stamp, named=self.path)

    def _go_on(self, stamp: Mapping[str, Any]) -> None:
        """Open the partial file behind what is kept of it."""
        if self.partial.exists():
            self._cut(stamp)
            for row in self.rows():
                self._take(row)
        else:
            self._write_stamp()
        self._handle = open(self.partial, "ab")  # noqa: SIM115  (open until the context ends)

    def _cut(self, stamp: Mapping[str, Any]) -> None:
        """Drop what follows the last whole piece of work, or at least the line that was being written."""
        whole = stamp.get("bytes", 0) if self._in_pieces else None
        state = stamp.get("state", {})
        with open(self.partial, "rb+") as handle:
            size = handle.seek(0, os.SEEK_END)
            if whole is None:
                handle.truncate(_end_of_last_line(handle, size))
            elif isinstance(whole, int) and 0 <= whole <= size and isinstance(state, dict):
                handle.truncate(whole)
                self.state = state
            else:
                raise UserError("does not fit its checkpoint", where=self.partial, hint=_START_ANEW)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows written so far, in the order in which they were written.

        Raises:
            UserError: A line is damaged.
        """
        if self._handle is not None:
            self._handle.flush()
        if not self.partial.exists():
            return
        with open(self.partial, "rb") as handle:
            for number, line in enumerate(handle, 1):
                try:
                    row = json.loads(line)
                    self._key_of(row)
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise UserError(
                        "damaged line", where=f"{self.partial}:{number}", hint=_START_ANEW
                    ) from error
                yield row

    def _key_of(self, row: Mapping[str, Any]) -> int:
        return hash(tuple(row[name] for name in self._key))

    def _take(self, row: Mapping[str, Any]) -> None:
        self._keys.add(self._key_of(row))
        self.num_rows += 1
        if len(self._keys) < self.num_rows:
            identity = ", ".join(str(row[name]) for name in self._key)
            raise UserError(f"the row {identity!r} appears twice", where=self.partial, hint=_START_ANEW)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row; it reaches the disk within about a second."""
        assert self._handle is not None, "append outside `with`"
        self._take(row)
        self._handle.write(_ENCODER.encode(row).encode() + b"\n")
        if time.monotonic() - self._last_sync > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Force what was appended to disk."""
        assert self._handle is not None, "sync outside `with`"
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._last_sync = time.monotonic()

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Take note, about once a second, that all rows so far make whole pieces of work.

        Args:
            state: What a run that goes on from here needs to know; JSON-able.
        """
        assert self._in_pieces, "a checkpoint of an output that goes on from any row"
        if time.monotonic() - self._last_checkpoint > _SYNC_SECONDS:
            self.sync()
            assert self._handle is not None
            self._write_stamp(bytes=os.fstat(self._handle.fileno()).st_size, state=dict(state))
            self._last_checkpoint = time.monotonic()

    def restart(self) -> None:
        """Drop all rows: those of an earlier run do not fit."""
        assert self._handle is not None, "restart outside `with`"
        self.sync()
        self._handle.truncate(0)
        self._keys.clear()
        self.num_rows, self.state = 0, {}

    def reopen(self) -> None:
        """Begin the finished file again; its rows are to be appended first."""
        assert self.complete, "only what is finished is reopened"
        self.complete = False
        self._go_on({})

    def discard(self) -> None:
        """Remove what is left of the partial file."""
        self._close()
        self.partial.unlink(missing_ok=True)
        self._stamp.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._handle is not None:
            try:
                self.sync()
            finally:
                handle, self._handle = self._handle, None
                handle.close()

    def commit(
        self, finalise: Callable[[Path, Path], int] | None = None, *, num_rows: int | None = None
    ) -> None:
        """Turn the partial file into the finished one and write the manifest.

        Args:
            finalise: Called with (partial file, temporary target) to sort or convert, returns how many rows
                it wrote; the default keeps the rows as they were appended.
            num_rows: Rows of the finished file where they are not those of the partial one.

        Raises:
            UserError: The rows in a file are not as many as were written.
        """
        self._close()
        _check_count(self.partial, _count_lines(self.partial), self.num_rows)
        with atomic_path(self.path) as temporary:
            if finalise is None:
                shutil.copyfile(self.partial, temporary)
            else:
                written = finalise(self.partial, temporary)
                _check_count(self.path, written, self.num_rows if num_rows is None else num_rows)
            self.manifest.output = describe(temporary, self._beside)
            # The manifest lands first: a kill between the two renames leaves the partial file, and the
            # next run commits again.
            write_json(manifest_path(self.path), self.manifest.to_json(), named=self.path)
        self.discard()


def _end_of_last_line(handle: IO[bytes], size: int) -> int:
    """Where the last newline ends; what follows was being written when the run was killed."""
    position, tail = size, b""
    while position > 0 and b"\n" not in tail:
        start = max(0, position - 65536)
        handle.seek(start)
        tail = handle.read(position - start)
        position = start
    return position + tail.rfind(b"\n") + 1


def _count_lines(path: Path) -> int:
    with open(path, "rb") as handle:
        return sum(block.count(b"\n") for block in iter(lambda: handle.read(1 << 20), b""))


def _check_count(path: Path, written: int, expected: int) -> None:
    if written != expected:
        raise UserError(
            f"holds {quantity(written, 'row')} instead of the {expected:,} that were written; another "
            "program changed it",
            where=path,
            hint=_START_ANEW,
        )
