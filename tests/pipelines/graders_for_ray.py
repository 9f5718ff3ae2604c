"""A grader that kills the process which runs it, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def killing_once(response: str, answer: str) -> tuple[bool, str]:
    killed = Path("killed")
    if response == "kill" and not killed.exists():
        killed.touch()
        os.kill(os.getppid(), signal.SIGKILL)
    return response == answer, response
