from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import UserError
from stepcredit.grading.pool import WorkerPool

WORKERS = "hostile_workers"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def pool(importable: None) -> Iterator[WorkerPool]:
    pool = WorkerPool(f"{WORKERS}:load", num_workers=2, time_limit=0.4, memory_limit=1 << 30)
    yield pool
    pool.close()


def outcome(pool: WorkerPool, *job: Any) -> Any:
    ticket = pool.wait(pool.submit(*job))
    return ticket.failure or ticket.value


def test_jobs_come_back_with_what_they_returned(pool: WorkerPool) -> None:
    tickets = [pool.submit("echo", number, "é\n") for number in range(50)]
    assert [pool.wait(ticket).value for ticket in tickets] == [["echo", n, "é\n"] for n in range(50)]
    assert pool.num_replaced == 0


@pytest.mark.parametrize("task", ["hang", "hang in C"])
def test_a_stuck_worker_is_killed_and_replaced(pool: WorkerPool, task: str) -> None:
    start = time.monotonic()
    tickets = [pool.submit("echo", 1), pool.submit(task), pool.submit("echo", 2)]
    assert [pool.wait(ticket).failure for ticket in tickets] == [None, "timeout", None]
    assert time.monotonic() - start < 5.0
    assert pool.num_replaced == 1
    assert outcome(pool, "echo", 3) == ["echo", 3]


@pytest.mark.parametrize(
    ("task", "failure"),
    [
        ("die", "crashed: exit status 7"),
        ("exit", "crashed: SystemExit: 1"),
        ("allocate", "crashed: out of memory"),
        ("recurse", "crashed: nested too deeply"),
    ],
)
def test_a_crash_fails_its_job_only(pool: WorkerPool, task: str, failure: str) -> None:
    assert outcome(pool, task) == failure
    assert outcome(pool, "echo") == ["echo"]


def test_what_a_job_prints_or_forges_is_not_taken_for_its_answer(pool: WorkerPool) -> None:
    assert outcome(pool, "print") == ["print"]
    assert outcome(pool, "lie") == ["lie"]
    assert outcome(pool, "echo") == ["echo"]


def test_a_call_goes_before_the_jobs_that_wait(pool: WorkerPool) -> None:
    tickets = [pool.submit("sleep", 0.05) for _ in range(20)]
    assert pool.call("echo").value == ["echo"]
    assert sum(ticket.done for ticket in tickets) < 10
    assert all(pool.wait(ticket).failure is None for ticket in tickets)


def test_a_job_that_finished_while_nobody_looked_is_not_timed_out(pool: WorkerPool) -> None:
    assert outcome(pool, "echo") == ["echo"]
    ticket = pool.submit("sleep", 0.1)
    time.sleep(0.8)
    assert pool.wait(ticket).value == ["sleep", 0.1]


def test_a_worker_that_was_killed_while_idle_costs_no_job(pool: WorkerPool) -> None:
    os.kill(outcome(pool, "pid"), signal.SIGKILL)
    time.sleep(0.1)
    assert [outcome(pool, "echo", n) for n in range(4)] == [["echo", n] for n in range(4)]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_module:load", "could not be loaded: ModuleNotFoundError"),
        (f"{WORKERS}:load_failing", "could not be loaded: RuntimeError: no luck"),
        (f"{WORKERS}:load_dying", "died while it started"),
    ],
)
def test_workers_that_cannot_start_are_an_error(factory: str, message: str) -> None:
    pool = WorkerPool(factory, num_workers=2, time_limit=1.0)
    with pytest.raises(UserError, match=message):
        pool.wait(pool.submit("echo"))


def test_no_process_is_left_behind(pool: WorkerPool) -> None:
    process = outcome(pool, "pid")
    pool.submit("hang")
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert outcome(pool, "echo") == ["echo"]


def test_it_works_outside_the_main_thread(pool: WorkerPool) -> None:
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(outcome(pool, "hang")))
    thread.start()
    thread.join(20)
    assert outcomes == ["timeout"]
    assert sys.is_finalizing() is False
