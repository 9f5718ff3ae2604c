"""The right to write an output: one process has it at a time, and gives it up however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcredit.errors import UserError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.ELOOP}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LONGEST_NAME_BESIDE = ".{name}.partial.settings.12345678.tmp"
"""The longest name of a file that a command makes beside its output."""
_SECONDS_TO_INTRODUCE = 0.5
"""How long a process that has just taken a lock may need to write its name into it."""


@dataclass(frozen=True, slots=True)
class _Held:
    descriptor: int
    thread: int


_held: dict[Path, _Held] = {}


def _forget_in_child() -> None:
    # A forked child shares the parent's lock. Without this it would keep an output locked after the
    # parent's death, and take itself for the writer.
    for held in _held.values():
        os.close(held.descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)


@contextlib.contextmanager
def locked(path: str | Path | None, *, patience: float = 0.0, named: Path | None = None) -> Iterator[None]:
    """Hold the right to write ``path``, and remove what killed runs left behind of it.

    The kernel releases the lock when the process ends, also when it is killed. In the thread that holds it
    the context may be entered again. Where the folder cannot be written, or its file system knows no
    locks, nothing is held.

    Args:
        path: A file or folder that is or will be there; ``None`` if nothing is written.
        patience: Seconds to wait for another process.
        named: The output that messages name, where ``path`` is a file beside it.

    Raises:
        UserError: Another process holds it; the message names it. Or ``path`` is the root folder, or its
            name leaves no room for the names of the files beside it.
    """
    if path is None:
        yield
        return
    named, path = named or Path(path), Path(os.path.abspath(path))
    if not path.name:
        raise UserError("is the root of the file system", where=named, hint="name another --out")
    make_folder(path.parent, named)
    path = path.parent.resolve() / path.name
    held = _held.get(path)
    if held is not None and held.thread == threading.get_ident():
        yield
        return
    _check_name(path, named)
    file = path.with_name(f".{path.name}.lock")
    descriptor = _acquire(named, file, patience)
    if descriptor is None:
        yield
        return
    _held[path] = _Held(descriptor, threading.get_ident())
    try:
        _clear_up(path)
        with _room_for(named):
            yield
    finally:
        # Unlinked while it is held: whoever opened it before sees that it is no longer the one beside `path`.
        if _held.pop(path, None) is not None:
            with contextlib.suppress(OSError):  # another user's, in a folder where only owners remove files
                file.unlink()
            os.close(descriptor)


@contextlib.contextmanager
def _room_for(output: Path) -> Iterator[None]:
    """Say of a full disk, or of a file that is too large, which output it is that does not fit.

    Raises:
        UserError: It does not fit.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        raise UserError(
            f"cannot be written ({os.strerror(error.errno).lower()})",
            where=output,
            hint="free some disk space and run the same command again",
        ) from error


def _check_name(path: Path, named: Path) -> None:
    """Refuse a name that is too long before there is any work, not where a file beside it is written."""
    thread = threading.get_ident()
    inside = any(other.parent == path.parent for other, held in [*_held.items()] if held.thread == thread)
    template = ".{name}.12345678.tmp" if inside else _LONGEST_NAME_BESIDE
    try:
        longest = os.pathconf(path.parent, "PC_NAME_MAX") - len(template.format(name=""))
    except (OSError, ValueError):  # the folder cannot be asked; writing will say what is wrong
        return
    if len(os.fsencode(path.name)) > longest:
        raise UserError(
            "its name is too long: it and the files beside it need room",
            where=named,
            hint=f"give it a name of at most {longest} bytes",
        )


def make_folder(folder: Path, output: Path) -> None:
    """Make the folder that ``output`` will lie in.

    Raises:
        UserError: Something else is in its place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        raise UserError(
            f"cannot create the folder {folder}", where=output, hint="name another --out"
        ) from error


def _acquire(path: Path, file: Path, patience: float) -> int | None:
    """A descriptor that holds the lock; ``None`` where there can be none."""
    deadline = time.monotonic() + patience
    while True:
        descriptor = _open(file)
        if descriptor is None:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < deadline:
                os.close(descriptor)
                time.sleep(0.02)
                continue
            holder = _introduction(descriptor)
            os.close(descriptor)
            raise UserError(
                f"is being written by {holder}", where=path, hint="wait for it, or name another output"
            ) from error
        except OSError as error:
            os.close(descriptor)
            file.unlink(missing_ok=True)
            if error.errno not in _NO_LOCKS:
                raise
            sys.stderr.write(
                f"warning: {path}: no locks here (file system without locks); make sure that only "
                "one process writes this output\n"
            )
            return None
        if _is_beside(file, descriptor):
            _introduce(descriptor)
            return descriptor
        os.close(descriptor)


def _open(file: Path) -> int | None:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:  # the folder was removed meanwhile; writing will say so
        return None
    except PermissionError:
        # Either nothing can be written here, or another user's killed run left the file.
        try:
            return os.open(file, os.O_RDONLY)
        except OSError:
            return None
    except OSError as error:
        if error.errno == errno.EROFS:
            return None
        raise


def _is_beside(file: Path, descriptor: int) -> bool:
    """Whether the opened file still is the one of that name: the earlier holder removes it at its end."""
    try:
        return os.path.samestat(os.stat(file), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _introduce(descriptor: int) -> None:
    about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with contextlib.suppress(OSError):  # a lock without a name is a lock
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(about).encode(), 0)


def _introduction(descriptor: int) -> str:
    """The holder's, for a message."""
    deadline = time.monotonic() + _SECONDS_TO_INTRODUCE
    while True:
        try:
            about: dict[str, Any] = json.loads(os.pread(descriptor, 4096, 0))
            return f"process {about['pid']} on {about['host']} since {about['since']}"
        except (ValueError, KeyError, TypeError):
            if time.monotonic() > deadline:
                return "another process"
            time.sleep(0.02)


def _clear_up(path: Path) -> None:
    """Remove temporary files of ``path``: who holds its lock knows that nobody is writing them."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.(tmp|old)")
    with os.scandir(path.parent) as entries:
        orphans = [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name)]
    for orphan in orphans:
        # Killed between retiring the earlier folder and putting the new one in its place.
        if orphan.suffix == ".old" and (orphan / "old").exists() and not path.exists():
            os.replace(orphan / "old", path)
        if orphan.is_dir():
            shutil.rmtree(orphan, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                orphan.unlink()
