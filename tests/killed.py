"""Commands in processes of their own that are killed at a chosen moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_PROGRAM = """
import os, signal, sys
import stepcredit.runs.lines as lines
{before}
lines._SYNC_SECONDS = 0.0  # each piece is noted at once
append, written = lines.ResumableLines.append, 0

def append_or_die(self, row):
    global written
    append(self, row)
    written += 1
    if written == {rows}:
        self.sync()
        os.kill(os.getpid(), signal.SIGKILL)

lines.ResumableLines.append = append_or_die
from stepcredit.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run_until_killed(words: Sequence[str], *, rows: int, before: str = "") -> None:
    """Run a command of stepcredit that is killed after it has written so many rows.

    Args:
        words: The command and its options.
        rows: How many.
        before: Python that runs first, e.g. to make pieces smaller.
    """
    program = _PROGRAM.format(rows=rows, before=before)
    result = subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr


def partial_rows(out: Path) -> int:
    """Rows that a killed run left."""
    return len(out.with_name(out.name + ".partial").read_bytes().splitlines())
