from __future__ import annotations

import importlib.util
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from stepcredit.cli import main
from stepcredit.cli.commands import COMMANDS
from stepcredit.cli.parser import OneLineParser, add_settings

_HEAVY = ("torch", "transformers", "numpy", "pandas", "pyarrow", "datasets", "matplotlib", "peft")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(command.name in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_options_that_parse_and_show_their_defaults(
    command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    name, module = command.name, command.module  # type: ignore[attr-defined]
    add_settings(OneLineParser(), import_module(module).Options)
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "--config" in shown
    assert "`" not in shown


@pytest.mark.parametrize(
    "words", [["--help"], *[[*c.name.split(), "--help"] for c in COMMANDS]], ids=" ".join
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys\nfrom stepcredit.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        f"heavy = [name for name in {_HEAVY!r} if name in sys.modules]\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "package"),
    [(["reproduce", "main"], "stepcredit_study"), (["bench", "score"], "stepcredit_bench")],
)
def test_a_command_of_a_package_that_is_not_installed_says_what_to_install(
    words: list[str],
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def find_spec(name: str) -> object | None:
        return None if name == package else importlib.util.find_spec(name)

    monkeypatch.setattr("stepcredit.cli.find_spec", find_spec)
    assert main(words) == 2
    message = capsys.readouterr().err
    assert f"needs the package {package}, which is not installed" in message
    assert "pip install ." in message
    assert message.count("\n") == 1


def test_help_takes_little_time() -> None:
    used = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "stepcredit", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(used) < 0.3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sampel"], "there is no command 'sampel'. Did you mean 'sample'?"),
        (["eval", "best-of"], "Did you mean 'eval best-of-n'?"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["grade", "nowhere.jsonl", "--grader", "exact", "--out", "out.jsonl"], "nowhere.jsonl"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.startswith("stepcredit: error: ")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_group_without_a_command_shows_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval"]) == 0
    shown = capsys.readouterr().out
    assert "eval best-of-n" in shown
    assert "sample" not in shown


def test_files_may_stand_before_and_after_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "first.jsonl").write_text("", encoding="utf-8")
    words = [str(tmp_path / "first.jsonl"), "--prm", "name=nowhere", str(tmp_path / "second.jsonl")]
    assert main(["eval", "processbench", *words]) == 2
    assert "unrecognized" not in capsys.readouterr().err


def test_too_little_memory_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("stepcredit.pipelines.convert.run", run)
    assert main(["convert", "rows.jsonl", "--out", "rows.parquet"]) == 2
    assert capsys.readouterr().err.startswith("stepcredit: error: out of memory. ")
