"""Outputs that are never half-written, and long outputs that go on where they were.

A finished file appears under its name in one step (write to a temporary name, flush to disk, rename).
A long one grows in ``<name>.partial`` beside it; when the same command is run again it goes on from there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from stepcredit.errors import UserError
from stepcredit.runs.manifest import Manifest, manifest_path, read_manifest

_SYNC_SECONDS = 1.0


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is renamed to ``path``, else removed."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"cannot create the folder {path.parent}", where=path, hint="name another --out"
        ) from error
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        os.chmod(temporary, 0o644)
        yield temporary
        _sync_file(temporary)
        os.replace(temporary, path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it replaces ``path``, else it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        os.chmod(temporary, 0o755)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync_file(file)
        if path.exists():
            retired = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
            os.replace(path, retired / "old")
            os.replace(temporary, path)
            shutil.rmtree(retired, ignore_errors=True)
        else:
            os.replace(temporary, path)
        _sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity are refused."""
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def check_output(path: str | Path, manifest: Manifest, *, overwrite: bool) -> bool:
    """Whether ``path`` already holds the result of exactly this work.

    Returns:
        True if it is complete and nothing needs to be done; False if it is free to be written.

    Raises:
        UserError: It holds something else and ``overwrite`` is off.
    """
    path = Path(path)
    if overwrite or not path.exists():
        return False
    earlier = read_manifest(path)
    if earlier is not None and earlier.get("settings_hash") == manifest.settings_hash:
        return True
    raise UserError(
        "already exists and was made with other settings, inputs or by other means",
        where=path,
        hint="choose another --out, or pass --overwrite to replace it",
    )


class ResumableLines:
    """A JSON Lines output that grows durably and survives being killed at any moment.

    Typical use::

        lines = ResumableLines(out, manifest, overwrite=False)
        if lines.complete:
            return
        done = {row["id"] for row in lines.rows()}
        with lines:
            for row in work(skip=done):
                lines.append(row)
        lines.commit()

    Args:
        path: The finished file.
        manifest: Identifies the work; a partial file of other work is refused.
        overwrite: Start anew, whatever is there.
    """

    def __init__(self, path: str | Path, manifest: Manifest, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self.manifest = manifest
        self.partial = self.path.with_name(self.path.name + ".partial")
        self._stamp = self.path.with_name(self.path.name + ".partial.settings")
        self.complete = check_output(self.path, manifest, overwrite=overwrite)
        self._handle: IO[bytes] | None = None
        self._last_sync = 0.0
        if self.complete:
            return
        empty = self.partial.exists() and self.partial.stat().st_size == 0
        if overwrite or empty:
            self.partial.unlink(missing_ok=True)
            self._stamp.unlink(missing_ok=True)
        if self.partial.exists() and self._stamp_hash() != manifest.settings_hash:
            raise UserError(
                "holds the start of a run with other settings or inputs",
                where=self.partial,
                hint="run with the earlier settings to go on, or pass --overwrite to start anew",
            )
        if self.partial.exists():
            self._cut_torn_line()

    @property
    def resumed(self) -> bool:
        """Whether there is something from an earlier run to go on from."""
        return not self.complete and self.partial.exists() and self.partial.stat().st_size > 0

    def _stamp_hash(self) -> str | None:
        try:
            return self._stamp.read_text(encoding="utf-8").strip()
        except OSError:
            return None

    def _cut_torn_line(self) -> None:
        """Drop what follows the last newline: a line that was being written when the run was killed."""
        with open(self.partial, "rb+") as handle:
            size = handle.seek(0, os.SEEK_END)
            position, tail = size, b""
            while position > 0 and b"\n" not in tail:
                start = max(0, position - 65536)
                handle.seek(start)
                tail = handle.read(position - start)
                position = start
            handle.truncate(position + tail.rfind(b"\n") + 1)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows written by earlier runs, in the order in which they were written."""
        if not self.partial.exists():
            return
        with open(self.partial, encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(
                        f"damaged line ({error.msg})",
                        where=f"{self.partial}:{number}",
                        hint="pass --overwrite to start anew",
                    ) from error
                yield row

    def __enter__(self) -> ResumableLines:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.partial.exists():
            with atomic_path(self._stamp) as temporary:
                temporary.write_text(self.manifest.settings_hash, encoding="utf-8")
        self._handle = open(self.partial, "ab")
        return self

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row; it reaches the disk within about a second."""
        assert self._handle is not None, "append outside `with`"
        self._handle.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        now = time.monotonic()
        if now - self._last_sync > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Force what was appended to disk."""
        assert self._handle is not None, "sync outside `with`"
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._last_sync = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        if self._handle is not None:
            self.sync()
            self._handle.close()
            self._handle = None

    def commit(self, finalise: Callable[[Path, Path], None] | None = None) -> None:
        """Turn the partial file into the finished one and write the manifest.

        Args:
            finalise: Called with (partial file, temporary target) to sort or convert; the default
                keeps the rows as they were appended.
        """
        if not self.partial.exists():
            self.__enter__().__exit__()
        with atomic_path(self.path) as temporary:
            if finalise is None:
                shutil.copyfile(self.partial, temporary)
            else:
                finalise(self.partial, temporary)
            # The manifest lands first: a kill between the two renames leaves the partial file, and the
            # next run commits again.
            write_json(manifest_path(self.path), self.manifest.to_json())
        self.partial.unlink(missing_ok=True)
        self._stamp.unlink(missing_ok=True)
