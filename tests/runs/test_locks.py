from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stepcredit.errors import UserError
from stepcredit.runs import Manifest, Output, ResumableLines, atomic_path, locked

HOLD = """
import sys
from stepcredit.runs import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_the_message_names_the_other_process(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with held_elsewhere(out) as process:
        expected = (
            rf"{re.escape(str(out))}: is being written by process {process.pid} on "
            rf"{re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\. Wait for it, .*"
        )
        with pytest.raises(UserError) as caught, locked(out):
            pass
        assert re.fullmatch(expected, str(caught.value))
        with pytest.raises(UserError, match="is being written"), Output(out, Manifest("test", {})):
            pass
    with locked(out):
        pass
    assert os.listdir(tmp_path) == []


def test_a_killed_process_gives_the_lock_up(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with held_elsewhere(out) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(out):
            pass
    assert os.listdir(tmp_path) == [], "the dead process's file is gone too"


def test_a_forked_child_does_not_hold_its_dead_parents_lock(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    program = (
        "import os, signal, sys\n"
        "from stepcredit.runs import locked\n"
        "with locked(sys.argv[1]):\n"
        "    if os.fork() == 0:\n"
        "        print('forked', flush=True)\n"
        "        sys.stdin.read()\n"
        "        os._exit(0)\n"
        "    signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "forked\n"
        process.kill()
        process.wait()
        with locked(out):
            pass


def test_one_thread_may_enter_again_and_another_may_not(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    problems: list[UserError] = []

    def other() -> None:
        try:
            with locked(out):
                pass
        except UserError as error:
            problems.append(error)

    with locked(out), locked(tmp_path / "x" / ".." / "out.jsonl"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()} on" in str(problems[0])
    assert not (tmp_path / ".out.jsonl.lock").exists()


def test_a_lock_file_without_a_holder_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".out.jsonl.lock").write_text("what a dead process wrote")
    with locked(tmp_path / "out.jsonl"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_holder_without_a_name_is_another_process(tmp_path: Path) -> None:
    file = tmp_path / ".out.jsonl.lock"
    with open(file, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="by another process"), locked(tmp_path / "out.jsonl"):
            pass


def test_a_single_write_waits_for_another_one(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with held_elsewhere(out) as process:
        assert process.stdin is not None
        threading.Timer(0.3, process.stdin.close).start()
        with atomic_path(out) as temporary:
            temporary.write_text("{}")
    assert os.listdir(tmp_path) == ["out.json"]


def test_a_folder_that_cannot_be_written_needs_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    with locked(tmp_path / "out.jsonl"):
        assert os.listdir(tmp_path) == []


def test_without_locks_in_the_file_system_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "out.jsonl"):
        pass
    assert "no locks here" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "trouble",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
    ],
    ids=["disk", "quota"],
)
def test_a_full_disk_names_the_output(tmp_path: Path, trouble: Exception) -> None:
    with (
        pytest.raises(
            UserError, match=r"out: cannot be written \((no space|disk quota).*\)\. Free some disk"
        ),
        locked(tmp_path / "out"),
    ):
        raise trouble
    assert os.listdir(tmp_path) == []


def test_errors_of_other_files_name_those(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="elsewhere"), locked(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device", "elsewhere")


def test_another_users_lock_file_may_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with locked(tmp_path / "out.jsonl"):
        monkeypatch.setattr(Path, "unlink", refuse)
    assert os.listdir(tmp_path) == [".out.jsonl.lock"]
    monkeypatch.undo()
    with locked(tmp_path / "out.jsonl"):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("extension", [".jsonl", ""])
def test_a_name_without_room_for_those_beside_it_is_refused_at_once(extension: str, tmp_path: Path) -> None:
    longest = os.pathconf(tmp_path, "PC_NAME_MAX") - len("..partial.settings.12345678.tmp")
    fits = tmp_path / ("é" * 4 + "n" * (longest - 8 - len(extension)) + extension)
    for out in (fits.with_name("n" + fits.name), fits.with_name(fits.name * 2)):
        with pytest.raises(UserError) as caught, locked(out):
            pytest.fail("the work would begin")
        assert str(caught.value) == (
            f"{out}: its name is too long: it and the files beside it need room. "
            f"Give it a name of at most {longest} bytes"
        )
    assert os.listdir(tmp_path) == []
    with ResumableLines(fits, Manifest("test", {})) as lines:
        lines.append({"id": "a"})
        lines.commit()
    assert {path.name for path in tmp_path.iterdir()} == {fits.name, f"{fits.name}.manifest.json"}
