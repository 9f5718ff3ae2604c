from __future__ import annotations

import pytest

from stepcredit.cli import main
from stepcredit_bench.processes import SideReport
from stepcredit_bench.search import Result
from stepcredit_bench.searching import SearchBenchmark, SearchSide, SearchWork


@pytest.mark.parametrize("shape", ["lab", "tiny"])
def test_both_sides_find_the_same_and_state_reads_less(shape: str) -> None:
    work = SearchWork(shape=shape, width=4, expand=2, max_new_tokens=48)
    outcomes = []
    for keeps_state in (True, False):
        side = SearchSide(work, keeps_state)
        side.load()
        side.prepare()
        outcomes.append(side.run())
    state, stateless = outcomes
    assert state["responses"] == stateless["responses"]
    assert state["worths"] == pytest.approx(stateless["worths"], abs=1e-4)
    assert 1.5 * state["forwarded_tokens"] < stateless["forwarded_tokens"]
    # Each drawn token passes through three models; prompts come on top.
    assert state["forwarded_tokens"] >= state["generated_tokens"]
    if shape == "tiny":
        assert state["generated_tokens"] > 48


def _report(seconds: float, forwarded: int, worth: float) -> SideReport:
    return SideReport(
        seconds=(2 * seconds, seconds),
        cpu_seconds=(seconds, seconds),
        outcome={
            "responses": ["1\n"],
            "worths": [worth],
            "generated_tokens": 100,
            "forwarded_tokens": forwarded,
        },
        imports_mb=100.0,
        loaded_mb=200.0,
        peak_mb=300.0,
    )


def test_ratios_by_hand() -> None:
    benchmark = SearchBenchmark(
        work=SearchWork(shape="lab"),
        threads=2,
        sides={"state": _report(2, 300, 1.0), "stateless": _report(7, 1200, 1.5)},
    )
    printed = Result(benchmark=benchmark).to_json()
    assert (printed["speedup"], printed["token_ratio"], printed["largest_difference"]) == (3.5, 4.0, 0.5)
    assert printed["same_trees"] is True
    assert "state: 3.50 x the speed, 1/4.00 of the tokens" in Result(benchmark=benchmark).to_text()


def test_a_width_that_cannot_be_divided_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "search", "--width", "6"]) == 2
    assert "--width: 6 is not a multiple of --expand 4" in capsys.readouterr().err
