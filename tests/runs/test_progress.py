from __future__ import annotations

import re

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
