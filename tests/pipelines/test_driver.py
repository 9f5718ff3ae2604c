from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stepcredit.data import rollout_to_json, write_rows
from stepcredit.errors import UserError
from stepcredit.options import argument, option
from stepcredit.pipelines import baseline, select
from stepcredit.pipelines.driver import Plan, RunByCommand, Store, command_line
from stepcredit.types import Rollout

ROLLOUT = Rollout(id="p/0", prompt_id="p", prompt="1+1=", response="1+1=2\n#2")


@dataclass(frozen=True, kw_only=True)
class Options:
    source: Path = argument("file to read")
    out: Path = option("file to write", default=Path())
    times: int = option("how often", default=1)
    overwrite: bool = option("replace", default=False)
    num_workers: int = option("processes", default=1)


class Recorder:
    """Makes files, and remembers which."""

    def __init__(self) -> None:
        self.made: list[Path] = []

    def __call__(self, command: str, options: Any) -> None:
        self.made.append(options.out)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(f"{command} {options.source.name} {options.times}")


def test_equal_requests_share_an_output_and_others_have_their_own(tmp_path: Path) -> None:
    recorder = Recorder()
    store = Store(tmp_path, recorder)
    first = store.make("copy", "thing", Options(source=Path("a")))
    assert first.read_text() == "copy a 1"
    assert store.make("copy", "thing", Options(source=Path("a"))) == first
    assert recorder.made == [first]
    others = [
        store.make("copy", "thing", Options(source=Path("b"))),
        store.make("copy", "thing", Options(source=Path("a"), times=2)),
        store.make("move", "thing", Options(source=Path("a"))),
    ]
    assert len({first, *others}) == 4
    assert all(path.is_relative_to(tmp_path) for path in others)


def test_an_output_that_the_caller_names_is_left_to_the_command(tmp_path: Path) -> None:
    """It alone can tell whether what lies there is of the same inputs."""
    write_rows(tmp_path / "rollouts.jsonl", [rollout_to_json(ROLLOUT)])
    options = baseline.Options(
        rollouts=tmp_path / "rollouts.jsonl", by="shortest", out=tmp_path / "scores.jsonl"
    )
    store = Store(tmp_path)
    assert store.run("baseline", options) == options.out
    made = options.out.stat().st_mtime_ns
    store.run("baseline", options)
    assert options.out.stat().st_mtime_ns == made
    write_rows(tmp_path / "rollouts.jsonl", [rollout_to_json(replace(ROLLOUT, response="longer"))])
    with pytest.raises(UserError, match="made with other settings or inputs"):
        store.run("baseline", options)
    Store(tmp_path, overwrite=True).run("baseline", options)
    assert options.out.stat().st_mtime_ns > made


def test_what_does_not_change_the_output_does_not_change_its_name(tmp_path: Path) -> None:
    store = Store(tmp_path, Recorder())
    plain = Options(source=Path("a"))
    first = store.make("copy", "thing", plain)
    for changed in (replace(plain, num_workers=8), replace(plain, overwrite=True)):
        assert store.make("copy", "thing", changed) == first


def test_names_are_the_same_wherever_the_store_lies(tmp_path: Path) -> None:
    """So that a copied store, or one under another --out, is found again."""
    names = []
    for folder in ("here", "over/there"):
        store = Store(tmp_path / folder, Recorder())
        first = store.make("copy", "first", Options(source=Path("a")))
        second = store.make("copy", "second", Options(source=first))
        names.append([path.relative_to(store.root) for path in (first, second)])
    assert names[0] == names[1]


def test_a_plan_makes_nothing_and_says_each_command_once(tmp_path: Path) -> None:
    plan = Plan()
    store = Store(tmp_path / "store", plan)
    assert store.is_planning
    for _ in range(2):
        first = store.make("copy", "first", Options(source=Path("a")))
        store.make("copy", "second", Options(source=first))
    store.write(store.root / "prompts.jsonl", lambda _: pytest.fail("a plan writes nothing"))
    assert [(command, options.source) for command, options in plan.steps] == [
        ("copy", Path("a")),
        ("copy", first),
    ]
    assert not store.root.exists()


def test_a_plan_gives_outputs_the_names_that_a_run_gives_them(tmp_path: Path) -> None:
    planned = Store(tmp_path, Plan()).make("copy", "first", Options(source=Path("a")))
    assert Store(tmp_path, Recorder()).make("copy", "first", Options(source=Path("a"))) == planned


def test_what_no_command_makes_is_written_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for text in ("first", "second"):
        store.write(tmp_path / "file", lambda path, text=text: path.write_text(text))  # type: ignore[misc]
    assert (tmp_path / "file").read_text() == "first"


def test_a_pipeline_runs_in_this_process_by_default(tmp_path: Path) -> None:
    source = tmp_path / "rollouts.jsonl"
    source.write_text(json.dumps({"id": "0", "prompt_id": "0", "prompt": "?", "response": "!"}) + "\n")
    store = Store(tmp_path / "store")
    part = store.make("select", "part", select.Options(rollouts=(source,), out=Path(), distinct=True))
    scores = store.make("baseline", "short", baseline.Options(rollouts=part, by="shortest", out=Path()))
    assert scores.is_file()
    assert scores.parent == store.root / "baseline"


WORKER = """
    import sys, time
    from pathlib import Path
    from stepcredit.pipelines.driver import Store
    root, log, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    def write(path):
        with open(log, "a") as handle:
            handle.write("begun\\n")
        time.sleep(seconds)
        path.write_text("whole")
    Store(root).write(root / "output", write)
"""


def worker(tmp_path: Path, seconds: float) -> subprocess.Popen[bytes]:
    arguments = [str(tmp_path / "store"), str(tmp_path / "log"), str(seconds)]
    (tmp_path / "store").mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(WORKER), *arguments])


def begun(tmp_path: Path) -> int:
    log = tmp_path / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("took too long")


@pytest.mark.slow
def test_of_processes_that_want_the_same_one_makes_it_and_the_others_wait(tmp_path: Path) -> None:
    workers = [worker(tmp_path, 0.5) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert begun(tmp_path) == 1
    assert (tmp_path / "store" / "output").read_text() == "whole"


@pytest.mark.slow
def test_what_a_killed_process_was_making_is_made_by_the_next(tmp_path: Path) -> None:
    killed = worker(tmp_path, 600)
    wait_until(lambda: begun(tmp_path) == 1)
    waiting = worker(tmp_path, 0)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert waiting.wait() == 0
    assert begun(tmp_path) == 2
    assert (tmp_path / "store" / "output").read_text() == "whole"


def launcher(tmp_path: Path, body: str) -> str:
    script = tmp_path / "launch it"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return f"'{script}' --with two"


def test_commands_are_run_with_what_launches_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The launcher is any program; this one writes what it was called with to the output."""
    body = 'for last; do :; done\nmkdir -p "$(dirname "$last")"\necho "$@" > "$last"'
    runner = RunByCommand({"copy": launcher(tmp_path, body)})
    out = Store(tmp_path / "store", runner).make("copy", "thing", Options(source=Path("a file")))
    assert out.read_text().strip() == f"--with two copy a file --out {out}"
    captured = capfd.readouterr()
    assert captured.err.startswith(f"$ '{tmp_path}/launch it' --with two copy 'a file' --out ")
    assert captured.out == ""


def test_commands_find_this_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although its folder is not on the path."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    runner = RunByCommand({"default": f'{os.path.basename(sys.executable)} -c \'open("made", "w")\''})
    runner("copy", Options(source=Path("a"), out=Path("b")))
    assert (tmp_path / "made").exists()


def test_a_command_that_fails_is_told_with_its_line(tmp_path: Path) -> None:
    runner = RunByCommand({"copy": launcher(tmp_path, "exit 3")})
    with pytest.raises(UserError, match="failed with code 3") as caught:
        Store(tmp_path / "store", runner).make("copy", "thing", Options(source=Path("a")))
    assert "copy a --out" in str(caught.value)


def test_a_launcher_that_is_not_there_is_a_users_mistake(tmp_path: Path) -> None:
    runner = RunByCommand({"copy": "no-such-launcher run"})
    with pytest.raises(UserError, match="no program 'no-such-launcher'"):
        Store(tmp_path / "store", runner).make("copy", "thing", Options(source=Path("a")))


def test_each_command_has_its_launcher_or_the_default() -> None:
    launchers = {"default": "uv run stepcredit", "copy": "torchrun -m stepcredit"}
    options = Options(source=Path("a b"), out=Path("c"), times=3)
    assert command_line("copy", options, launchers) == "torchrun -m stepcredit copy 'a b' --out c --times 3"
    assert command_line("move", options, launchers) == "uv run stepcredit move 'a b' --out c --times 3"
    assert command_line("move", options, {}) == "stepcredit move 'a b' --out c --times 3"
