"""In a worker process: starts a program and its tests, each shut in, watches them, and says how it went.

Three processes: this one, which runs nobody's code; the tests, which send their verdict here; and the
program, which talks to its tests by two pipes and has nothing else. Each is a Python of its own, so that the
program's memory holds neither its tests nor anything of this process; it does not get the environment either.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from stepcredit.grading.base import CRASHED, DIFFERS, MATCH, TIMEOUT
from stepcredit.grading.programs.child import ENDED, READY, VERDICT
from stepcredit.grading.programs.confinement import Limits

TOTAL_BYTES = 64 << 20
"""What a program may leave on the disk at a time."""
START_SECONDS = 60.0
_MOST_FILES = 2000
_TICK_SECONDS = 0.02
_START = "import sys; sys.path[:0] = [{!r}]; from stepcredit.grading.programs.child import main; main()"


def load(directory: str, seconds: float, memory: int, unsafe: bool) -> Callable[[str, str], str]:
    """Return the function that runs a program against its tests and gives the reason of the verdict."""
    limits = Limits(seconds, memory, unsafe)

    def run(program: str, tests: str) -> str:
        folder = tempfile.mkdtemp(dir=directory)
        os.chmod(folder, 0o711)
        try:
            with _Trial(folder, limits) as trial:
                return trial.run(program, tests)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return run


def _is_of_python(folder: str) -> bool:
    """Whether a folder of the module path holds the standard library or packages, not someone's work."""
    inside = (sys.base_prefix + os.sep, sys.prefix + os.sep)
    return folder.startswith(inside) or os.path.basename(folder) in ("site-packages", "dist-packages")


class _Pipe(NamedTuple):
    """The two ends of a pipe."""

    source: int
    target: int


class _Trial:
    """One program, one run of its tests."""

    def __init__(self, folder: str, limits: Limits) -> None:
        self._limits = limits
        asking, answering, verdict = (_Pipe(*os.pipe()) for _ in range(3))
        self._verdict, self._received = verdict.source, b""
        self._program = self._start("program", folder, asking.source, answering.target)
        self._tests = self._start("tests", folder, answering.source, asking.target, verdict.target)
        for end in (*asking, *answering, verdict.target):
            os.close(end)
        self._folder = folder

    def __enter__(self) -> _Trial:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._program, self._tests):
            process.kill()
            process.wait()
        with contextlib.suppress(OSError):
            assert self._tests.stdin is not None
            self._tests.stdin.close()
        os.close(self._verdict)

    def _start(
        self, role: str, folder: str, source: int, target: int, *verdict: int
    ) -> subprocess.Popen[bytes]:
        own = os.path.join(folder, role)
        os.mkdir(own, 0o700)
        setup = {
            "role": role,
            "folder": own,
            "limits": self._limits._asdict(),
            "path": [entry for entry in sys.path if _is_of_python(entry)],
            "source": source,
            "target": target,
            "verdict": verdict[0] if verdict else None,
        }
        source_root = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", _START.format(source_root), json.dumps(setup)],
            stdin=subprocess.PIPE if verdict else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
            cwd=own,
            pass_fds=(source, target, *verdict),
        )

    def run(self, program: str, tests: str) -> str:
        """Wait for the verdict.

        Raises:
            OSError: The processes did not start.
        """
        deadline = time.monotonic() + START_SECONDS
        if self._next(deadline) != [READY, None]:
            raise OSError(
                "this system did not allow a program to be sandboxed, or Python did not start in the sandbox"
            )
        with contextlib.suppress(OSError):  # tests that are gone are noticed below
            assert self._tests.stdin is not None
            self._tests.stdin.write(json.dumps({"program": program, "tests": tests}).encode())
            self._tests.stdin.close()
        message = self._next(time.monotonic() + self._limits.seconds)
        match message:
            case [str(kind), failure] if kind == VERDICT:
                return MATCH if failure is None else f"{DIFFERS}: {failure}"
            case [str(kind), None] if kind == ENDED:
                return self._why_it_ended(self._program)
            case str(reason):
                return reason
        return self._why_it_ended(self._tests)

    def _next(self, deadline: float) -> Any:
        """The next line from the tests; a reason if it was cut short; ``None`` if they ended without one."""
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            if left <= 0:
                return TIMEOUT
            if select.select([self._verdict], [], [], min(left, _TICK_SECONDS))[0]:
                piece = os.read(self._verdict, 1 << 16)
                if not piece:
                    return None
                self._received += piece
            elif self._writes_too_much():
                return f"{DIFFERS}: more than {TOTAL_BYTES >> 20} MB or {_MOST_FILES} files were written"
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    @staticmethod
    def _why_it_ended(process: subprocess.Popen[bytes]) -> str:
        try:
            status = process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return f"{CRASHED}: the program sent an invalid answer"
        return TIMEOUT if status == -signal.SIGXCPU else f"{CRASHED}: exit status {status}"

    def _writes_too_much(self) -> bool:
        """Whether files of the two, deleted ones that are still open included, are over the limit."""
        size, count = 0, 0
        folders = [self._folder]
        while folders:
            with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    count += 1
                    if count > _MOST_FILES:
                        return True
                    with contextlib.suppress(OSError):
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
        for process in (self._program, self._tests):
            opened = f"/proc/{process.pid}/fd"
            with contextlib.suppress(OSError):
                for name in os.listdir(opened):
                    with contextlib.suppress(OSError):
                        status = os.stat(f"{opened}/{name}")
                        if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                            size += status.st_blocks * 512
        return size > TOTAL_BYTES
