"""Append-only storage of float32 rows by key: safe with several writers, and a damaged row reads as absent.

A writer process owns one shard, a pair of files that nobody else appends to: ``<name>.rows`` holds the rows
one after another, ``<name>.index`` one entry of fixed size a row, written after the row. Every entry carries
a checksum of itself and one of (key, row), so a torn, truncated or altered entry or row is never returned.
"""

from __future__ import annotations

import os
import secrets
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import UserError

KEY_BYTES = 16

_MAGIC = b"stepcredit-log-probs-1\n"
_ENTRY = np.dtype(
    [
        ("key", f"V{KEY_BYTES}"),
        ("offset", "<u8"),
        ("length", "<u4"),
        ("row_checksum", "<u4"),
        ("entry_checksum", "<u4"),
    ]
)
_ENTRY_BODY = _ENTRY.itemsize - 4


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row lies: its shard, the byte at which it starts, its number of values, its checksum."""

    shard: str
    offset: int
    length: int
    checksum: int


class RowStore:
    """Rows of float32 numbers in a folder, by 16-byte key.

    Args:
        directory: Made if it is not there; several stores and processes may share it.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError("is not a folder", where=self.directory, hint="name another cache") from error
        self._places: dict[bytes, tuple[_Place, ...]] = {}
        self._consumed: dict[str, int] = {}
        self._writer: _ShardWriter | None = None
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def refresh(self) -> None:
        """Take in what other processes have written since."""
        for path in sorted(self.directory.glob("*.index")):
            shard = path.stem
            consumed = self._consumed.get(shard, 0)
            if path.stat().st_size - consumed >= _ENTRY.itemsize:
                self._read_index(path, shard, consumed)

    def _read_index(self, path: Path, shard: str, consumed: int) -> None:
        with open(path, "rb") as handle:
            if consumed == 0:
                if handle.read(len(_MAGIC)) != _MAGIC:
                    return
                consumed = len(_MAGIC)
            handle.seek(consumed)
            content = handle.read()
        whole = len(content) // _ENTRY.itemsize
        for number in range(whole):
            raw = content[number * _ENTRY.itemsize : (number + 1) * _ENTRY.itemsize]
            entry = np.frombuffer(raw, _ENTRY)[0]
            if zlib.crc32(raw[:_ENTRY_BODY]) == int(entry["entry_checksum"]):
                place = _Place(shard, int(entry["offset"]), int(entry["length"]), int(entry["row_checksum"]))
                self._add(raw[:KEY_BYTES], place)
        self._consumed[shard] = consumed + whole * _ENTRY.itemsize

    def get(self, keys: Sequence[bytes]) -> tuple[dict[bytes, NDArray[np.float32]], set[bytes]]:
        """Read rows.

        Returns:
            The intact rows by key, and the keys whose rows are damaged; these are forgotten, so that they
            may be put anew.
        """
        if any(key not in self._places for key in keys):
            self.refresh()
        rows: dict[bytes, NDArray[np.float32]] = {}
        pending = [key for key in dict.fromkeys(keys) if key in self._places]
        while pending:
            by_shard: dict[str, list[bytes]] = defaultdict(list)
            for key in pending:
                by_shard[self._places[key][-1].shard].append(key)
            for shard, members in by_shard.items():
                rows.update(self._read_rows(shard, members))
            # A row that was damaged and put anew has an intact copy in another place.
            pending = [key for key in pending if key not in rows and self._forget_last(key)]
        damaged = {key for key in keys if key in self._places and key not in rows}
        for key in damaged:
            del self._places[key]
        return rows, damaged

    def _add(self, key: bytes, place: _Place) -> None:
        self._places[key] = (*self._places.get(key, ()), place)

    def _forget_last(self, key: bytes) -> bool:
        """Drop the key's last place where it has others; whether it had."""
        if len(self._places[key]) == 1:
            return False
        self._places[key] = self._places[key][:-1]
        return True

    def _read_rows(self, shard: str, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        rows: dict[bytes, NDArray[np.float32]] = {}
        places = {key: self._places[key][-1] for key in keys}
        path = self.directory / f"{shard}.rows"
        if not path.exists():
            return rows
        with open(path, "rb") as handle:
            for key, place in sorted(places.items(), key=lambda item: item[1].offset):
                content = os.pread(handle.fileno(), 4 * place.length, place.offset)
                if len(content) == 4 * place.length and _row_checksum(key, content) == place.checksum:
                    rows[key] = np.frombuffer(content, "<f4").astype(np.float32)
        return rows

    def put(self, rows: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Append rows and make them visible to other processes.

        Raises:
            UserError: The disk is full or the folder cannot be written.
        """
        if not rows:
            return
        try:
            # After a fork the shard belongs to the parent.
            if self._writer is None or self._writer.process != os.getpid():
                self._writer = _ShardWriter(self.directory)
            places = self._writer.append(rows)
        except OSError as error:
            # What was half written is covered by checksums; later rows go to a fresh shard.
            self._writer = None
            raise UserError(
                f"cannot be written: {error.strerror}", where=self.directory, hint="free some space"
            ) from error
        for key, place in places.items():
            self._add(key, place)
        self._consumed[self._writer.name] = self._writer.index_size

    def __getstate__(self) -> dict[str, object]:
        return {"directory": self.directory}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__init__(state["directory"])  # type: ignore[misc]


class _ShardWriter:
    """Appends to a shard of its own."""

    def __init__(self, directory: Path) -> None:
        self.process = os.getpid()
        self.name = f"{self.process}-{secrets.token_hex(6)}"
        self._rows = open(directory / f"{self.name}.rows", "xb")  # noqa: SIM115 (open for the store's life)
        self._index = open(directory / f"{self.name}.index", "xb")  # noqa: SIM115
        self._index.write(_MAGIC)
        self._offset = 0
        self.index_size = len(_MAGIC)

    def append(self, rows: Mapping[bytes, NDArray[np.float32]]) -> dict[bytes, _Place]:
        places: dict[bytes, _Place] = {}
        entries = []
        for key, row in rows.items():
            content = row.astype("<f4").tobytes()
            checksum = _row_checksum(key, content)
            self._rows.write(content)
            places[key] = _Place(self.name, self._offset, len(row), checksum)
            body = np.array([(key, self._offset, len(row), checksum, 0)], _ENTRY).tobytes()[:_ENTRY_BODY]
            entries.append(body + zlib.crc32(body).to_bytes(4, "little"))
            self._offset += len(content)
        self._rows.flush()
        self._index.write(b"".join(entries))
        self._index.flush()
        self.index_size += len(entries) * _ENTRY.itemsize
        return places


def _row_checksum(key: bytes, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(key))
