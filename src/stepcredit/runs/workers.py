"""Processes that compute side by side, each with its share of the processors."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

START_METHOD = "spawn"
"""How processes begin, as :mod:`multiprocessing` names it."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def worker_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes whose maths libraries start as many threads as their share allows.

    A smaller number that the environment gives (``OMP_NUM_THREADS``) is kept. What has not started when the
    context ends is cancelled. If this process is killed, or asked to end, its workers end too.

    Args:
        jobs: Processes, at least 1.
    """
    share = max(1, (os.cpu_count() or 1) // jobs)
    earlier = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    # The libraries read these when they are loaded, which is in the new processes.
    os.environ.update({name: str(_at_most(share, value)) for name, value in earlier.items()})
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context(START_METHOD), initializer=end_with_parent
    )
    try:
        yield pool
    except (KeyboardInterrupt, GeneratorExit):
        # Their work can be resumed, and nobody waits for it any more.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in earlier.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _at_most(share: int, value: str | None) -> int:
    return min(share, int(value)) if value and value.isdecimal() and int(value) > 0 else share


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
