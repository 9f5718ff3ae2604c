"""Whenever a run is interrupted, it says so in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stepcredit.cli.interrupts import Interrupts

PROGRAM = """
import os, signal, sys
# A shell's background job, as the tests may be, starts with SIGINT ignored; a user's command does not.
signal.signal(signal.SIGINT, signal.default_int_handler)
from stepcredit.__main__ import main
class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, AtImport())
sys.argv[1:] = {words!r}
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "name", "code"),
    [
        ("stepcredit.cli", "SIGINT", 130),
        ("argparse", "SIGINT", 130),
        ("stepcredit.pipelines.convert", "SIGINT", 130),
        ("numpy._core._multiarray_umath", "SIGINT", 130),
        ("numpy.random", "SIGTERM", 143),
    ],
)
def test_an_interrupt_while_importing_is_one_line(module: str, name: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "q", "response": "a"}\n', encoding="utf-8")
    words = ["convert", "rows.jsonl", "--out", "rows.parquet"]
    program = PROGRAM.format(module=module, name=name, words=words)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.strip().startswith("stepcredit: interrupted")
    assert done.stderr.strip().count("\n") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_remembered_and_handlers_put_back(number: int) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
        threading.Event().wait(5)
    assert interrupts.received == number
    assert signal.getsignal(number) is before


def test_other_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def enter() -> None:
        with Interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
