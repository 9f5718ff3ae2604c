from pathlib import Path

import pytest

from stepcredit.runs.stopwatch import WHOLE, Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still unless it is changed."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def measure(watch: Stopwatch, name: str, seconds: float, clock: list[float]) -> None:
    with watch.stage(name):
        clock[0] += seconds


def test_parts_of_a_stage_add_up_over_runs(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    first = Stopwatch(tmp_path / "seconds.json")
    measure(first, "sampling", 1.5, clock)
    measure(first, "sampling", 2.0, clock)
    again = Stopwatch(tmp_path / "seconds.json")
    again.add({"sampling": 1.0, "scoring": 0.5})
    measure(again, WHOLE, 4.0, clock)
    assert Stopwatch(tmp_path / "seconds.json").seconds == {"sampling": 4.5, "scoring": 0.5, WHOLE: 4.0}
    assert capsys.readouterr().err == "sampling ...\nsampling ...\n"


def test_starting_over_forgets_earlier_runs(tmp_path: Path, clock: list[float]) -> None:
    measure(Stopwatch(tmp_path / "seconds.json"), "sampling", 1.0, clock)
    assert Stopwatch(tmp_path / "seconds.json", overwrite=True).seconds == {}


def test_without_a_file_nothing_is_said(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    watch = Stopwatch()
    measure(watch, "sampling", 1.0, clock)
    assert watch.seconds == {"sampling": 1.0}
    assert capsys.readouterr().err == ""
