from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from stepcredit.runs import Progress


def test_lines_tell_count_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("scoring", 4, "responses", every=0.0) as progress:
        for _ in range(4):
            progress.advance(extra="12 tokens/s")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"scoring: 1/4 responses, [\d,.]+ responses/s, 0:00 left, 12 tokens/s", lines[0])
    assert re.fullmatch(r"scoring: 4/4 responses, [\d,.]+ responses/s, 0:00 taken, 12 tokens/s", lines[-1])


def test_what_an_earlier_run_did_does_not_count_towards_the_rate() -> None:
    assert Progress("x", 1000, done=900).status().startswith("0.0 rows/s")


def test_short_work_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("x", 2) as progress:
        progress.advance(2)
    assert capsys.readouterr().err == ""


def test_the_last_line_is_there_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("scoring", 2, every=0.0) as progress:
        progress.advance()
        progress.advance()
        progress.advance(0, "all good")
    assert [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "scoring: 1/2 rows",
        "scoring: 2/2 rows",
    ]


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What a kernel shows: (``new`` or ``update``, HTML)."""
    shown: list[tuple[str, str]] = []
    display = pytest.importorskip("IPython.display")

    class Handle:
        def update(self, content: Any) -> None:
            shown.append(("update", content.data))

    def show(content: Any, **_: Any) -> Handle:
        shown.append(("new", content.data))
        return Handle()

    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(display, "display", show)
    monkeypatch.setattr("stepcredit.runs.progress._NOTEBOOK_SECONDS", 0.0)
    return shown


def test_a_notebook_shows_one_bar_that_moves(
    notebook: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("score <all>", 2, "responses") as progress:
        progress.advance()
        progress.advance(extra="all good")
    assert [kind for kind, _ in notebook] == ["new", "update"]
    first, last = (html for _, html in notebook)
    assert first.startswith('<progress value="1" max="2"></progress> score &lt;all&gt;: 1/2 responses')
    assert last.startswith('<progress value="2" max="2"></progress>')
    assert last.endswith("all good")
    assert capsys.readouterr().err == ""


def test_short_work_shows_nothing_in_a_notebook(
    notebook: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepcredit.runs.progress._NOTEBOOK_SECONDS", 60.0)
    with Progress("score", None) as progress:
        progress.advance()
    assert notebook == []
