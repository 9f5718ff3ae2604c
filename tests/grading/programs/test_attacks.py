"""Programs that mean harm, run for real: as root where the tests run as root, and as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.grading.programs.attacks import EQUALITIES, FILLERS, FORGERIES, PROGRAMS, SHADOWS

from stepcredit.grading import Grade, GradingItem, make_grader
from stepcredit.grading.programs.confinement import what_is_missing

pytestmark = pytest.mark.skipif(bool(what_is_missing()), reason="needs Linux with seccomp and Landlock")

AS_ANYBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
LOOKING = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]  # Python may lie in /root
SUMS = "assert add(1, 2) == 3\nassert abs(add(1, 2) - 3) < 1e-6\nassert sorted([add(1, 2)]) == [3]"


def fenced(program: str) -> str:
    return f"```python\n{program}\n```"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that anyone may write in."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("content")
    for path, mode in ((folder, 0o777), (folder / "file", 0o666)):
        path.chmod(mode)
    yield folder
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (folder / "file").read_text() == "content"
    assert (folder / "file").stat().st_mode & 0o777 == 0o666


def graded(programs: dict[str, str], tests: str, *, time_limit: float = 10.0) -> dict[str, Grade]:
    with make_grader("code", time_limit=time_limit) as grader:
        grades = grader.grade_all(GradingItem(fenced(program), tests) for program in programs.values())
        return dict(zip(programs, grades, strict=True))


def harms(outside: Path) -> dict[str, str]:
    programs = {name: text.replace("OUTSIDE", str(outside)) for name, text in PROGRAMS.items()}
    grades = graded(programs, "assert harm() == [], harm()")
    return {name: grade.reason for name, grade in grades.items() if not grade.correct}


def test_programs_harm_nothing(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    assert harms(outside) == {}


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_programs_of_an_ordinary_user_harm_nothing(outside: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    work = tmp_path / "work"
    work.mkdir(mode=0o777)
    work.chmod(0o777)
    code = (
        "import json, sys; from pathlib import Path; from tests.grading.programs.test_attacks import harms; "
        "print(json.dumps(harms(Path(sys.argv[1]))))"
    )
    environment = {"TMPDIR": str(work), "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(work)}
    run = subprocess.run(
        [*AS_ANYBODY, *LOOKING, sys.executable, "-c", code, str(outside)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=True,
    )
    assert json.loads(run.stdout) == {}


def test_the_attacks_are_real(outside: Path) -> None:
    """Those that do no harm here get away with it where nothing shuts them in."""
    for name, wanted in (
        ("files outside", {"truncate", "create", "names"}),
        ("modes, owners, times and attributes", {"mode", "times"}),
        ("the network", {"internet", "unix", "pair"}),
    ):
        copy = outside.with_name("copy")
        shutil.copytree(outside, copy)
        program = PROGRAMS[name].replace("OUTSIDE", str(copy)) + "\nprint(*harm())"
        printed = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=copy)
        assert wanted <= set(printed.split()), name
        shutil.rmtree(copy)


def test_an_environment_is_there_to_be_read() -> None:
    program = "import os; print(open(f'/proc/{os.getppid()}/environ').read())"
    assert "PATH=" in subprocess.check_output([sys.executable, "-c", program], text=True)


def test_no_program_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    free = shutil.disk_usage(tmp_path).free
    grades = graded(FILLERS, "", time_limit=6.0)
    assert "File too large" in grades["one file"].reason
    for name in ("many files", "deleted files"):
        assert grades[name].reason == "differs: more than 64 MB or 2000 files were written", name
    assert not grades["empty files"].correct
    assert list(tmp_path.iterdir()) == []
    assert free - shutil.disk_usage(tmp_path).free < 4 << 30


def test_no_program_passes_by_forgery() -> None:
    grades = graded(FORGERIES, SUMS)
    assert {name: grade.reason for name, grade in grades.items() if grade.correct} == {}
    assert "SystemExit" in grades["leaving politely"].reason
    assert grades["leaving early"].reason.startswith("crashed")


def test_no_object_of_a_program_equals_all() -> None:
    grades = graded(EQUALITIES, "assert add(1, 2) == 3")
    assert {name: grade.reason for name, grade in grades.items() if grade.correct} == {}


def test_tests_keep_their_built_ins() -> None:
    (shadowed,) = graded({"": SHADOWS}, "assert abs(add(1, 2) - 3) < 1e-6").values()
    assert shadowed.reason.startswith("differs: AssertionError")
    (asked_for,) = graded({"": "def sum(a, b): return a + b"}, "assert sum(1, 2) == 3").values()
    assert asked_for.correct


def test_a_secret_of_the_grader_reaches_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    program = (
        "import os\nraise ValueError(str(dict(os.environ)) + open(f'/proc/{os.getppid()}/environ').read())"
    )
    (grade,) = graded({"leak": program}, "").values()
    assert not grade.correct
    assert "hunter2" not in grade.reason
