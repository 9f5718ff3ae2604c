from __future__ import annotations

import numpy as np
import pytest

from stepcredit_bench.limit import forward_operations, shared_work
from stepcredit_bench.processes import SideReport
from stepcredit_bench.score import Options, Result
from stepcredit_bench.scoring import OurSide, PublishedSide, ScoreBenchmark, ScoreWork

WORK = ScoreWork(shape="tiny", num_groups=2, responses_per_group=3)


def test_both_ways_score_alike() -> None:
    sides = [OurSide(WORK, "float32"), PublishedSide(WORK, "float32")]
    ratios = []
    for side in sides:
        side.load()
        side.warm_up()
        side.prepare()
        ratios.append(side.run()["log_ratios"])
    assert len(ratios[0]) == 6
    assert np.abs(ratios[0]).min() > 1e-3
    np.testing.assert_allclose(ratios[0], ratios[1], rtol=0, atol=1e-4)


def report(seconds: float, peak_mb: float, log_ratio: float) -> SideReport:
    return SideReport(
        seconds=(2 * seconds, seconds),
        cpu_seconds=(seconds, seconds),
        outcome={"log_ratios": [log_ratio] * 6},
        imports_mb=100.0,
        loaded_mb=200.0,
        peak_mb=peak_mb,
    )


def test_ratios_by_hand() -> None:
    operations = 2 * forward_operations("tiny", shared_work(WORK.sequences()))
    benchmark = ScoreBenchmark(
        products_per_second=operations / 2,
        work=WORK,
        dtype="bfloat16",
        published_dtype="float32",
        threads=2,
        num_scored=sum(item.num_scored for item in WORK.sequences()),
        sides={"ours": report(2, 300, 1.5), "published": report(12, 900, 1.0)},
    )
    printed = Result(benchmark=benchmark).to_json()
    assert printed["speedup_vs_published"] == 6.0
    assert printed["memory_ratio_vs_published"] == (300 - 200) / (900 - 200)
    assert printed["total_memory_ratio_vs_published"] == 300 / 900
    shortest = min(item.num_scored for item in WORK.sequences())
    assert printed["largest_difference_vs_published"] == pytest.approx(0.5 / shortest)
    assert printed["sides"]["ours"]["responses_per_second"] == 3.0
    # Two seconds of two threads' processor time are one of the machine's, in half of which all could be done.
    assert (printed["utilisation"], printed["cpu_speedup_vs_published"]) == (2.0, 6.0)
    text = Result(benchmark=benchmark).to_text()
    assert "against published: 6.00 x the speed, 1/6.00 of the processor time, 0.33 of the memory" in text
    assert text.endswith("ours reaches 200% of the rate of its matrix products alone")


def test_the_defaults_are_the_stated_comparison() -> None:
    options = Options()
    assert (options.shape, options.responses, options.dtype) == ("smollm2-135m", 64, "bfloat16")
