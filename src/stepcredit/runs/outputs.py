"""Outputs that are never half-written, written by one process at a time, and known again when finished.

A finished file appears under its name in one step (write to a temporary name, flush to disk, rename), with a
manifest beside it that says how it was made and what it holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from stepcredit.errors import UserError
from stepcredit.runs.locks import locked
from stepcredit.runs.manifest import Manifest, added, describe, difference, manifest_path, read_manifest
from stepcredit.runs.progress import warn

_PATIENCE = 10.0
"""Seconds to wait for another process's single write, which takes milliseconds."""


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
def _naming(output: Path) -> Iterator[None]:
    """Say that ``output`` cannot be written, and not the temporary file that the user knows nothing of."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise UserError(f"cannot be written ({reason})", where=output, hint="name another --out") from error


@contextlib.contextmanager
def atomic_path(path: str | Path, *, named: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is renamed to ``path``, else removed.

    Args:
        named: The output that the user named, where ``path`` is a file beside it.

    Raises:
        UserError: Another process is writing ``path``, or nothing can be written there.
    """
    path = Path(path)
    with locked(path, patience=_PATIENCE, named=named):
        with _naming(named or path):
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
    """Yield a temporary folder beside ``path``; on success it replaces ``path``, else it is removed.

    Raises:
        UserError: Another process is writing ``path``, or nothing can be written there.
    """
    path = Path(path)
    with locked(path, patience=_PATIENCE):
        with _naming(path):
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


def write_text(path: str | Path, text: str, *, named: Path | None = None) -> None:
    """Write a text file, as :func:`atomic_path` does."""
    with atomic_path(path, named=named) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, *, named: Path | None = None) -> None:
    """Write ``value`` as indented JSON, as :func:`atomic_path` does; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", named=named)


def check_output(path: str | Path, manifest: Manifest, *, overwrite: bool) -> bool:
    """Whether ``path`` already holds the result of exactly this work.

    Returns:
        True if it is complete and nothing needs to be done; False if it is free to be written.

    Raises:
        UserError: It is one of the inputs or has one in it, a folder of the user's, or a link that leads
            nowhere; or it holds something else, or is not what was written, and ``overwrite`` is off.
    """
    path = Path(path)
    check_keeps_inputs(path, manifest.inputs)
    check_leads_somewhere(path)
    if overwrite and path.is_dir() and any(path.iterdir()):
        _check_nothing_is_lost(path)
    if overwrite or not path.exists():
        return False
    earlier = read_manifest(path)
    if earlier is None or not manifest.is_of(earlier.get("settings_hash"), path):
        raise UserError(
            "already exists and was made with other settings or inputs, or by another program",
            where=path,
            hint="choose another --out, or pass --overwrite to replace it",
        )
    described = earlier.get("output")
    if described is None:
        warn(f"{path}: its manifest has no hash of it, so it was not checked for damage")
    elif changed := difference(path, described):
        raise UserError(
            f"was changed since it was finished: {changed}",
            where=path,
            hint="restore it, or pass --overwrite to make it again",
        )
    return True


def _check_nothing_is_lost(folder: Path) -> None:
    """Refuse to remove what no command made."""
    if not manifest_path(folder).exists():
        raise UserError(
            "is a folder that no command made, and --overwrite would remove all that is in it",
            where=folder,
            hint="choose another --out, or remove it yourself",
        )
    described = (read_manifest(folder) or {}).get("output")
    if described is not None and (name := added(folder, described)):
        raise UserError(
            f"has {name} in it, which was added since, and --overwrite would remove it",
            where=folder,
            hint="choose another --out, or move that file away",
        )


def check_keeps_inputs(path: Path, inputs: Iterable[str | Path], *, flag: str = "--out") -> None:
    """Refuse an output that would replace what it is made from.

    Args:
        flag: The option that names ``path``.

    Raises:
        UserError: ``path`` is one of the inputs, or a folder with one in it.
    """
    if not path.exists():
        return
    for source in map(Path, inputs):
        if not source.exists():
            continue
        if path.samefile(source):
            raise UserError("is the input itself", where=path, hint=f"choose another {flag}")
        # What a link in the folder leads to may lie elsewhere, so its parents as it is named count too.
        if path.resolve() in {
            *source.resolve().parents,
            source.parent.resolve(),
            *source.parent.resolve().parents,
        }:
            raise UserError(f"has the input {source} in it", where=path, hint=f"choose another {flag}")


def check_leads_somewhere(path: Path) -> None:
    """Refuse a link to what is not there, which is no place for a folder, and which a file would replace.

    Raises:
        UserError: It is one.
    """
    if path.is_symlink() and not path.exists():
        raise UserError("is a link that leads nowhere", where=path, hint="remove it, or name another --out")


def check_is_no_folder(path: Path) -> None:
    """Refuse a folder where a file is to be written.

    Raises:
        UserError: It is one.
    """
    if path.is_dir():
        raise UserError("is a folder", where=path, hint="name a file")


class Output:
    """A file or folder that one command makes, locked while the context lasts.

    Typical use::

        with Output(out, manifest, overwrite=False) as output:
            if output.complete:
                return
            with output.replacing() as temporary:
                write(temporary)

    Attributes:
        complete: It is there already, made by this very work, and as it was written.

    Raises:
        UserError: On entering: another process is writing it, or it holds something else.
    """

    def __init__(self, path: str | Path, manifest: Manifest, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self.manifest = manifest
        self.complete = False
        self._overwrite = overwrite
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.enter_context(locked(self.path))
            self.complete = check_output(self.path, self.manifest, overwrite=self._overwrite)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @property
    def counts(self) -> dict[str, int]:
        """Those of this run, or of the one that made it."""
        made = (read_manifest(self.path) or {}).get("counts", {}) if self.complete else self.manifest.counts
        return dict(made)

    @contextlib.contextmanager
    def replacing(self) -> Iterator[Path]:
        """Yield a temporary file; on success it becomes the output, with its manifest beside it."""
        check_is_no_folder(self.path)
        with atomic_path(self.path) as temporary:
            yield temporary
            self.manifest.output = describe(temporary)
            # The manifest lands first: a kill between the two renames leaves no file that nobody knows.
            write_json(manifest_path(self.path), self.manifest.to_json(), named=self.path)

    @contextlib.contextmanager
    def replacing_folder(self) -> Iterator[Path]:
        """Yield a temporary folder; on success it becomes the output, with its manifest inside."""
        with atomic_directory(self.path) as temporary:
            yield temporary
            self.manifest.output = describe(temporary)
            write_json(manifest_path(temporary), self.manifest.to_json(), named=self.path)
