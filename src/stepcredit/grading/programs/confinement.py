"""Shutting a process in for good: what it may read and write, its user, its limits, its system calls."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stepcredit.grading.programs.system_calls import filter_system_calls, has_filter

FILE_BYTES = 16 << 20
OPEN_FILES = 64
_SMALLEST_ABI = 3  # since then truncating is a right of its own
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_FOLDER, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
_IN_FOLDER = _WRITE_FILE | _READ_FILE | _READ_FOLDER | _TRUNCATE
_IN_FOLDER |= 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13  # remove, make, link and move files
_FILES_ONLY = _WRITE_FILE | _READ_FILE | _TRUNCATE
_NUM_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # by Landlock's version; from the fifth on 16
_NET, _SCOPES = 0b11, 0b11  # bind and connect by TCP; abstract sockets and signals
_READABLE = (
    "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/sys/devices/system/cpu",
    "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom",
)  # fmt: skip
_READ_SEARCH, _KEEP_CAPABILITIES, _DEATH_SIGNAL, _CAPABILITY_VERSION = 1 << 2, 8, 1, 0x20080522


class Limits(NamedTuple):
    """What a process may use.

    Attributes:
        seconds: Processor time.
        memory: Bytes of address space.
        unsafe: Shut the process in as far as this system can, where it cannot do all of it.
    """

    seconds: float
    memory: int
    unsafe: bool = False


def what_is_missing() -> list[str]:
    """What this system lacks for shutting a program in; empty if nothing."""
    if sys.platform != "linux":
        return ["Linux"]
    missing = [] if has_filter() else ["seccomp on x86_64 or aarch64"]
    if landlock_version() < _SMALLEST_ABI:
        missing.append("Landlock with control of truncation (Linux 6.2 or newer)")
    return missing


def landlock_version() -> int:
    """Version of Linux's interface to Landlock, 0 where there is none."""
    version = ctypes.CDLL(None).syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _VERSION_FLAG)
    return max(0, int(version))


def confine(folder: str, limits: Limits, readable: Iterable[str]) -> None:
    """Shut this process in for good.

    It may read Python, the system's libraries, and ``readable``; write in ``folder``; and make the calls that
    :mod:`~stepcredit.grading.programs.system_calls` lists. Where it is root it becomes a user of its own.

    Raises:
        OSError: The system cannot do all of it, and ``limits.unsafe`` is off.
    """
    os.chdir(folder)
    os.environ.clear()
    os.environ.update({"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1"})
    os.umask(0o077)
    seconds = max(1, round(limits.seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    allowed = [os.path.dirname(os.__file__), sys.prefix, sys.base_prefix, *_READABLE, *readable]
    steps = [
        lambda: _become_another_user(libc, folder),
        lambda: _die_with_parent(libc),
        lambda: _confine_files(libc, folder, allowed),
        filter_system_calls,
    ]
    for step in steps:
        with contextlib.suppress(*((OSError, KeyError) if limits.unsafe else ())):
            step()


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def _become_another_user(libc: ctypes.CDLL, folder: str) -> None:
    """Root becomes a user that nobody else is, who may at most look into folders that only root may."""
    if os.getuid() != 0:
        return
    _check(libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0), "cannot keep a capability")
    with contextlib.suppress(PermissionError):
        os.setgroups([])
    chance = int.from_bytes(os.urandom(8))
    # In a container only small numbers may be users.
    for user in ((1 << 29) + chance % (1 << 29), 60_000 + chance % 5_534):
        try:
            os.chown(folder, user, user)
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            break
        except OSError:
            continue
    else:
        raise OSError("root cannot become another user here")
    try:
        os.stat(os.__file__)
        os.stat(folder)
        kept = 0
    except PermissionError:  # Python lies where only root may look: Landlock still says what may be read
        kept = _READ_SEARCH
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    _check(libc.capset(header, struct.pack("6I", kept, kept, 0, 0, 0, 0)), "cannot drop capabilities")


def _die_with_parent(libc: ctypes.CDLL) -> None:
    """After the change of user, which would undo it."""
    _check(libc.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0), "cannot ask for a signal")


def _confine_files(libc: ctypes.CDLL, folder: str, readable: Sequence[str]) -> None:
    version = landlock_version()
    if version == 0:
        raise OSError("this system has no Landlock")
    rights = (1 << _NUM_RIGHTS.get(version, 16)) - 1
    attributes = struct.pack("QQQ", rights, _NET, _SCOPES)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = ctypes.create_string_buffer(attributes, len(attributes))
    ruleset = _check(libc.syscall(_LANDLOCK_CREATE, rules, ctypes.c_size_t(size), 0), "no Landlock")
    paths = [(path, _READ_FILE | _READ_FOLDER) for path in readable]
    for path, allowed in [*paths, (folder, _IN_FOLDER), (os.devnull, _WRITE_FILE | _READ_FILE)]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            _allow(libc, ruleset, path, allowed & rights)
    _check(libc.prctl(38, 1, 0, 0, 0), "cannot give up privileges")
    _check(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "cannot restrict files")
    os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH)
    try:
        allowed = rights if os.path.isdir(path) else rights & _FILES_ONLY
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, descriptor), 12)
        _check(libc.syscall(_LANDLOCK_ADD, ruleset, _PATH_BENEATH, rule, 0), f"cannot allow {path}")
    finally:
        os.close(descriptor)
