import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.processes import CONTEXT

from stepcredit.errors import UserError
from stepcredit.runs import beside, may_fork, warn


def in_a_process(check: Callable[..., None], *arguments: object) -> None:
    """Run a check in a process with one thread, which can be forked."""
    process = CONTEXT.Process(target=check, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def warn_and_name_the_process() -> int:
    warn("said beside")
    return os.getpid()


def refuse() -> None:
    raise UserError("cannot be used", where="a.jsonl", hint="correct it")


def fail() -> None:
    raise ZeroDivisionError


def end_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def the_work_is_done_in_another_process() -> None:
    with beside(warn_and_name_the_process, forks=True) as wait:
        assert multiprocessing.active_children() != []
        assert wait() != os.getpid()
    assert multiprocessing.active_children() == []


def problems_are_raised_where_the_result_is_asked_for() -> None:
    for work, message in (
        (refuse, "^a.jsonl: cannot be used. Correct it$"),
        (fail, "its error stands above"),
        (end_oneself, "ended by something else. Run the same command again"),
    ):
        with beside(work, forks=True) as wait, pytest.raises(UserError, match=message):
            wait()


def wait_long(out: Path) -> None:
    def work() -> None:
        out.write_text(str(os.getpid()))
        time.sleep(60)

    with beside(work, forks=True) as wait:
        wait()


def test_the_work_is_done_in_another_process() -> None:
    in_a_process(the_work_is_done_in_another_process)


def test_problems_are_raised_where_the_result_is_asked_for() -> None:
    in_a_process(problems_are_raised_where_the_result_is_asked_for)


def test_the_work_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    process = CONTEXT.Process(target=wait_long, args=(tmp_path / "worker",))
    process.start()
    while not (tmp_path / "worker").exists() or not (tmp_path / "worker").read_text():
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    worker = Path("/proc") / (tmp_path / "worker").read_text()
    deadline = time.monotonic() + 30
    while worker.exists() and " Z " not in (worker / "stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_a_fork_it_is_done_when_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with beside(warn_and_name_the_process, forks=False) as wait:
        assert capsys.readouterr().err == ""
        assert wait() == os.getpid()
    assert "said beside" in capsys.readouterr().err


def one_processor_is_not_enough() -> None:
    assert may_fork() == (len(os.sched_getaffinity(0)) > 1)
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    assert not may_fork()


def test_a_fork_needs_a_second_processor() -> None:
    in_a_process(one_processor_is_not_enough)
