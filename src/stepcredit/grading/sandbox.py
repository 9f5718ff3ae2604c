"""In a worker process: shut the process in, then run one program against its tests."""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import io
import json
import os
import platform
import resource
import struct
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

_FILE_BYTES = 16 << 20
_OPEN_FILES = 64
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _SECCOMP_FILTER = 38, 22, 2
_ALLOW, _KILL, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026  # EPERM, ENOSYS
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CLONE_THREAD = 0x10000
_OTHER_ABI = 0x40000000

# Sockets, child processes, signals to others, and ways around them. By machine: the audit name of the
# architecture, clone, clone3, then what is refused: socket, (fork, vfork,) execve, execveat, kill, tkill,
# tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal, pidfd_open, ptrace, process_vm_readv,
# process_vm_writev, io_uring_setup, unshare, setns.
_SYSTEM_CALLS: Mapping[str, tuple[int, int, int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000003E,
        56,
        435,
        (41, 57, 58, 59, 322, 62, 200, 234, 129, 297, 424, 434, 101, 310, 311, 425, 272, 308),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        435,
        (198, 221, 281, 129, 130, 131, 138, 240, 424, 434, 117, 270, 271, 425, 97, 268),
    ),
}


def load(directory: str, cpu_seconds: float) -> Callable[[str, str], str | None]:
    """Shut this process in for good, and return the function that runs a program.

    Raises:
        OSError: This system offers no way to cut off the network.
    """
    folder = tempfile.mkdtemp(dir=directory)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update({"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1"})
    tempfile.tempdir = folder
    seconds = max(1, round(cpu_seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _confine_writes(libc, folder)
    _filter_system_calls(libc)
    return run_program


def run_program(program: str, tests: str) -> str | None:
    """Run a program and its tests; ``None`` if all pass, else what went wrong."""
    sys.setrecursionlimit(10_000)
    try:
        cases = _cases(tests)
        if cases is None:
            names = {"__name__": "__main__", "__builtins__": builtins}
            exec(compile(program, "<program>", "exec"), names)
            exec(compile(tests, "<tests>", "exec"), names)
            return None
        for number, (given, expected) in enumerate(cases, 1):
            if _printed(program, given).split() != expected.split():
                return f"case {number} printed something else"
    except BaseException as error:  # SystemExit too: leaving early passes no test
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


def _cases(tests: str) -> list[tuple[str, str]] | None:
    """Pairs of input and output, or ``None`` where the tests are Python source."""
    if not tests.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(tests)
    except json.JSONDecodeError:
        return None
    return [
        (str(given), str(expected)) for given, expected in zip(found["inputs"], found["outputs"], strict=True)
    ]


def _printed(program: str, given: str) -> str:
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    before, sys.stdin = sys.stdin, io.StringIO(given)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
            exec(compile(program, "<program>", "exec"), names)
    finally:
        sys.stdin = before
    return printed.getvalue()


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"this system cannot cut off a program's network ({os.strerror(number)})")
    return result


def _filter_system_calls(libc: ctypes.CDLL) -> None:
    """Install a seccomp filter: refused calls fail with EPERM, foreign architectures end the process."""
    known = _SYSTEM_CALLS.get(platform.machine())
    if sys.platform != "linux" or known is None:
        raise OSError("cutting off a program's network needs Linux on x86_64 or aarch64")
    architecture, clone, clone3, refused = known
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    program += [(_AT_LEAST, 0, 1, _OTHER_ABI), (_RETURN, 0, 0, _REFUSE)]
    for number in refused:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    program += [(_EQUAL, 0, 1, clone3), (_RETURN, 0, 0, _UNKNOWN)]
    program += [(_EQUAL, 0, 3, clone), (_LOAD, 0, 0, 16), (_ANY_BIT, 1, 0, _CLONE_THREAD)]
    program += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    _check(libc.prctl(_SET_SECCOMP, _SECCOMP_FILTER, ctypes.create_string_buffer(header, len(header)), 0, 0))


_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_PATH_BENEATH = 1
_WRITES = 0x1FF2  # writing and truncating files is bit 1; removing, making and renaming are bits 4 to 12


def _confine_writes(libc: ctypes.CDLL, folder: str) -> None:
    """Let this process write only inside ``folder``, by Landlock; nothing happens where there is none."""
    rules = ctypes.create_string_buffer(struct.pack("Q", _WRITES), 8)
    ruleset = libc.syscall(_LANDLOCK_CREATE, rules, ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return
    for path in (folder, os.devnull):
        descriptor = os.open(path, os.O_PATH)
        allowed = _WRITES if path == folder else 0x2
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, descriptor), 12)
        _check(libc.syscall(_LANDLOCK_ADD, ruleset, _PATH_BENEATH, rule, 0))
        os.close(descriptor)
    _check(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0))
    os.close(ruleset)
