"""A part of a command's work in another process, while this one does the rest."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from stepcredit.errors import UserError
from stepcredit.runs.workers import end_with_parent

Made = TypeVar("Made")


def may_fork() -> bool:
    """Whether this process can safely be forked, and has a second processor for it."""
    if sys.platform != "linux" or threading.active_count() > 1:
        return False
    return len(os.sched_getaffinity(0)) > 1


@contextlib.contextmanager
def beside(work: Callable[[], Made], *, forks: bool) -> Iterator[Callable[[], Made]]:
    """Do some work in a fork of this process during a ``with``; calling its value gives what came out.

    What the fork writes to standard error comes then too. It ends with this process, also when that is
    killed.

    Args:
        work: Returns what can be pickled. Errors of users are raised again where the result is asked for.
        forks: Off: the work is done in this process when its result is asked for.
    """
    if not forks:
        yield work
        return
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, sender))
    process.start()
    sender.close()
    try:
        yield lambda: _received(receiver)
    finally:
        process.terminate()
        process.join()
        receiver.close()


def _run(work: Callable[[], object], sender: Connection) -> None:
    end_with_parent()
    sys.stderr = said = io.StringIO()
    made, problem = None, None
    try:
        made = work()
    except UserError as error:
        problem = str(error)
    except KeyboardInterrupt:  # the parent gets it too
        os._exit(130)
    except Exception:
        traceback.print_exc()
        problem = "a part of the run failed; its error stands above"
    sender.send((made, problem, said.getvalue()))


def _received(receiver: Connection) -> Any:
    try:
        made, problem, said = receiver.recv()
    except EOFError as error:
        raise UserError(
            "a process of this run was ended by something else", hint="run the same command again to continue"
        ) from error
    sys.stderr.write(said)
    if problem is not None:
        raise UserError(problem)
    return made
