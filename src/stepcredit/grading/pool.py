"""Worker processes with a hard time limit for each job: a stuck or dead worker is killed and replaced.

Workers are plain subprocesses that speak JSON lines, so a pool works in any thread, needs no guard around
the main module, and uses no signals in this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepcredit.errors import UserError
from stepcredit.grading.base import Grade, Grader, GradingItem

_START_SECONDS = 120.0


@dataclass(slots=True, eq=False)
class Ticket:
    """A job and, once ``done``, what became of it.

    Attributes:
        value: What the function returned, if ``failure`` is ``None``.
        failure: ``timeout``, or ``crashed`` with a reason after a colon.
    """

    job: Sequence[Any]
    done: bool = False
    value: Any = None
    failure: str | None = None

    def _finish(self, value: Any, failure: str | None) -> None:
        self.done, self.value, self.failure = True, value, failure


@dataclass(slots=True, eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    deadline: float
    ready: bool = False
    ticket: Ticket | None = None
    nonce: str = ""
    received: bytearray = field(default_factory=bytearray)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class WorkerPool:
    """Runs jobs in worker processes that start on the first job.

    Args:
        factory: ``module:function`` that makes the workers' function, called once in each worker.
        arguments: Arguments of the factory, JSON-able.
        time_limit: Seconds that a job may take; then its worker is killed.
        memory_limit: Bytes of address space of a worker; ``None`` is no limit.
    """

    def __init__(
        self,
        factory: str,
        arguments: Sequence[Any] = (),
        *,
        num_workers: int,
        time_limit: float,
        memory_limit: int | None = None,
    ) -> None:
        self.num_workers, self.time_limit = num_workers, time_limit
        self.num_replaced = 0
        self._setup = {
            "factory": factory,
            "arguments": list(arguments),
            "path": [os.path.abspath(entry) for entry in sys.path],
            "memory_limit": memory_limit,
            "time_limit": time_limit,
        }
        self._waiting: deque[Ticket] = deque()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._finalizer = weakref.finalize(self, _kill_all, self._workers)

    def submit(self, *job: Any) -> Ticket:
        """Queue a job; it runs while :meth:`advance` or :meth:`wait` is being called, and between."""
        ticket = Ticket(job)
        self._waiting.append(ticket)
        self.advance()
        return ticket

    def call(self, *job: Any) -> Ticket:
        """Run a job before those that wait, and return when it is done."""
        ticket = Ticket(job)
        self._waiting.appendleft(ticket)
        return self.wait(ticket)

    def wait(self, ticket: Ticket) -> Ticket:
        """Work until a job is done."""
        while not ticket.done:
            self.advance(block=True)
        return ticket

    def advance(self, *, block: bool = False) -> None:
        """Take in what workers have answered, end those past their time, hand out waiting jobs.

        Raises:
            UserError: A worker could not start.
        """
        self._hand_out()
        busy = [worker for worker in self._workers if worker.ticket is not None or not worker.ready]
        if not busy:
            return
        timeout = max(0.0, min(worker.deadline for worker in busy) - time.monotonic()) if block else 0.0
        for key, _ in self._selector.select(timeout):
            self._receive(key.data)
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.ticket is not None and now >= worker.deadline:
                self._retire(worker, "timeout")
            elif not worker.ready and now >= worker.deadline:
                self.close()
                raise UserError(f"a grading process did not start within {_START_SECONDS:.0f} seconds")
        self._hand_out()

    def close(self) -> None:
        """End all workers; jobs that were not done never will be."""
        for worker in list(self._workers):
            self._remove(worker)
        self._waiting.clear()

    def _hand_out(self) -> None:
        while self._waiting:
            idle = next((worker for worker in self._workers if worker.ready and worker.ticket is None), None)
            if idle is None:
                starting = sum(not worker.ready for worker in self._workers)
                if len(self._workers) < self.num_workers and starting < len(self._waiting):
                    self._start()
                    continue
                return
            ticket = self._waiting.popleft()
            idle.ticket, idle.deadline = ticket, time.monotonic() + self.time_limit
            idle.nonce = secrets.token_hex(8)
            try:
                self._send(idle, [idle.nonce, list(ticket.job)])
            except OSError:  # it died while idle, so the job is not to blame
                idle.ticket = None
                self._waiting.appendleft(ticket)
                self._remove(idle)
                self.num_replaced += 1

    def _start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "stepcredit.grading.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(self._setup["path"])},  # type: ignore[arg-type]
            start_new_session=True,
        )
        worker = _Worker(process, deadline=time.monotonic() + _START_SECONDS)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._workers.append(worker)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        with contextlib.suppress(OSError):  # a worker that died at once is noticed when its output ends
            self._send(worker, self._setup)

    @staticmethod
    def _send(worker: _Worker, message: Any) -> None:
        assert worker.process.stdin is not None
        worker.process.stdin.write(json.dumps(message).encode() + b"\n")
        worker.process.stdin.flush()

    def _receive(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        piece = os.read(worker.process.stdout.fileno(), 1 << 20)
        if not piece:
            if not worker.ready:
                self.close()
                raise UserError("a grading process died while it started")
            status = worker.process.wait()
            out_of_time = -status in (signal.SIGXCPU, signal.SIGALRM)
            self._retire(worker, "timeout" if out_of_time else f"crashed: exit status {status}")
            return
        worker.received += piece
        while worker in self._workers and b"\n" in worker.received:
            line, _, worker.received = worker.received.partition(b"\n")
            self._take(worker, bytes(line))

    def _take(self, worker: _Worker, line: bytes) -> None:
        """Accept an answer; a line that is none of ours comes from the job itself, and is ignored."""
        try:
            message = json.loads(line)
        except ValueError:
            return
        if not worker.ready:
            if "failed" in message:
                self.close()
                raise UserError(f"the grader could not be loaded: {message['failed']}")
            worker.ready = True
            return
        if worker.ticket is None or not isinstance(message, dict) or message.get("nonce") != worker.nonce:
            return
        ticket, worker.ticket = worker.ticket, None
        error = message.get("error")
        ticket._finish(message.get("value"), None if error is None else f"crashed: {error}")

    def _retire(self, worker: _Worker, failure: str) -> None:
        """Kill a worker; the job it was at, if any, has failed."""
        if worker.ticket is not None:
            worker.ticket._finish(None, failure)
        self._remove(worker)
        self.num_replaced += 1

    def _remove(self, worker: _Worker) -> None:
        self._selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        self._workers.remove(worker)
        worker.kill()


def _kill_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.kill()


@dataclass(frozen=True, slots=True)
class Pending:
    """An item whose verdict is under way.

    Attributes:
        prediction: That of its grade, where the job fails.
        judged: Makes its grade of what the job gives.
    """

    ticket: Ticket
    prediction: str | None
    judged: Callable[[Any], Grade]


class PooledGrader(Grader):
    """A grader that judges in worker processes."""

    _pool: WorkerPool
    _window = 256
    """Most items that are open, so that slow ones do not hold up the others."""

    @abstractmethod
    def _begin(self, item: GradingItem) -> Grade | Pending:
        """The grade of an item, or the job that it needs, which is started."""

    def grade_all(self, items: Iterable[GradingItem]) -> Iterator[Grade]:
        """Grade in input order: the oldest item once it is decided, or once too many are open."""
        window: deque[Grade | Pending] = deque()
        for item in items:
            window.append(self._begin(item))
            while window and (len(window) >= self._window or self._is_decided(window[0])):
                yield self._end(window.popleft())
        yield from map(self._end, window)

    @staticmethod
    def _is_decided(entry: Grade | Pending) -> bool:
        return isinstance(entry, Grade) or entry.ticket.done

    def _end(self, entry: Grade | Pending) -> Grade:
        if isinstance(entry, Grade):
            return entry
        outcome = self._pool.wait(entry.ticket)
        if outcome.failure is not None:
            return Grade(False, entry.prediction, outcome.failure)
        return entry.judged(outcome.value)

    def close(self) -> None:
        """End the worker processes."""
        self._pool.close()
