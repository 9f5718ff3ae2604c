from __future__ import annotations

from pathlib import Path

import pytest

from stepcredit.cli import main
from stepcredit_bench.growing import DIMENSIONS, STAGES, Growth, Stage, exponent
from stepcredit_bench.growth import Result, draw
from stepcredit_bench.processes import SideReport


def report(cpu_seconds: float, peak_mb: float) -> SideReport:
    return SideReport(
        seconds=(9.0,),
        cpu_seconds=(cpu_seconds,),
        outcome={"children_seconds": 1.0, "children_mb": 10.0},
        imports_mb=50.0,
        loaded_mb=100.0,
        peak_mb=peak_mb,
    )


def test_exponents_by_hand() -> None:
    assert exponent((1, 2, 4), (3.0, 6.0, 12.0)) == pytest.approx(1.0)
    assert exponent((1, 2, 4), (3.0, 12.0, 48.0)) == pytest.approx(2.0)
    assert exponent((1, 10), (5.0, 5.0)) == pytest.approx(0.0)


def test_a_line_has_processor_seconds_and_memory_of_all_processes() -> None:
    growth = Growth("group", "score", (64, 256), (report(1.0, 110.0), report(7.0, 130.0)))
    assert growth.seconds == (2.0, 8.0)
    assert growth.megabytes == (20.0, 40.0)
    (row,) = Result(growths=(growth,), shape="tiny").to_json()["growth"]
    assert row["time_exponent"] == pytest.approx(1.0)
    assert row["memory_exponent"] == pytest.approx(0.5)
    text = Result(growths=(growth,), shape="tiny").to_text().splitlines()[1]
    assert text.split() == ["group", "score", "256", "8.00", "40.0", "1.00", "0.50"]


def test_sizes_end_at_the_largest() -> None:
    assert DIMENSIONS["rollouts"].sizes(1_000_000, 3) == (62_500, 250_000, 1_000_000)
    assert DIMENSIONS["length"].sizes(8192, 2) == (4096, 8192)


@pytest.mark.parametrize("dimension", list(DIMENSIONS))
def test_an_input_is_as_large_as_it_says(dimension: str) -> None:
    given = DIMENSIONS[dimension].at(96)
    rows = list(given.rows(seed=0))
    assert len({row["id"] for row in rows}) == len(rows)
    counts = {
        "rollouts": len(rows) if dimension == "rollouts" else 0,
        "length": len(rows[0]["response"]) + given.step_tokens - 2,  # the last line is the answer
        "group": len([row for row in rows if row["prompt_id"] == "0"]),
        "steps": len(rows[0]["response"].splitlines()),
    }
    assert counts[dimension] == (100 if dimension == "rollouts" else 96)


@pytest.mark.parametrize("name", list(STAGES))
def test_every_stage_runs(name: str) -> None:
    dimension = next(key for key, value in DIMENSIONS.items() if name in value.stages)
    stage = Stage(name, DIMENSIONS[dimension].at(16), "tiny", seed=0)
    stage.load()
    stage.prepare()
    assert stage.run()["children_seconds"] >= 0
    assert any(Path(stage.folder).iterdir())


def test_curves_are_drawn_with_their_exponents() -> None:
    growth = Growth("group", "score", (64, 256), (report(1.0, 110.0), report(7.0, 130.0)))
    picture = draw((growth,))
    assert picture.startswith("<svg")
    assert "score by group: n^1.00" in picture


def test_what_cannot_be_measured_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--points", "1"], "--points: must be at least 2, got 1"),
        (["--stage", "serve"], "--stage: 'serve' is no stage"),
        (["--largest", "3"], "--largest: has no room for 4 sizes"),
    ):
        assert main(["bench", "growth", *words]) == 2
        assert message in capsys.readouterr().err
