"""The other end of :mod:`stepcredit.grading.pool`: reads jobs from stdin, answers on stdout, one line each.

Whatever a job prints goes nowhere, and a job that outlives its run is ended by the operating system: the
timer below is a backstop for workers whose parent was killed; the time limit itself is kept by the parent.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import IO, Any

_GRACE_SECONDS = 5.0


def main() -> None:
    """Serve until stdin ends."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nowhere, descriptor)
    setup = json.loads(requests.readline())
    sys.path[:] = setup["path"]
    if setup["memory_limit"] is not None:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (setup["memory_limit"],) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        module, _, name = setup["factory"].partition(":")
        serve = getattr(importlib.import_module(module), name)(*setup["arguments"])
    except Exception as error:
        _reply(replies, {"failed": f"{type(error).__name__}: {error}"})
        return
    _reply(replies, {"ready": True})
    for line in requests:
        signal.setitimer(signal.ITIMER_REAL, setup["time_limit"] + _GRACE_SECONDS)
        nonce, job = json.loads(line)
        answer = _answer(serve, job)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _reply(replies, {"nonce": nonce, **answer})


def _answer(serve: Callable[..., Any], job: list[Any]) -> dict[str, Any]:
    try:
        answer = {"value": serve(*job)}
        json.dumps(answer)
    except MemoryError:
        answer = {"error": "out of memory"}
    except RecursionError:
        answer = {"error": "nested too deeply"}
    except BaseException as error:  # a job may raise anything, SystemExit too
        answer = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    return answer


def _reply(replies: IO[bytes], answer: dict[str, Any]) -> None:
    replies.write(json.dumps(answer).encode() + b"\n")
    replies.flush()


if __name__ == "__main__":
    main()
