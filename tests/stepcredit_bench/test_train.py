from __future__ import annotations

import pytest

from stepcredit_bench.processes import SideReport
from stepcredit_bench.train import NOTE, Options, Result
from stepcredit_bench.training import OurSide, PlainSide, TrainBenchmark, TrainWork, TrlSide

WORK = TrainWork(
    shape="tiny", steps=3, batch_size=2, learning_rate=1e-3, precision="float32", tokens_per_forward=500
)


def losses(side: OurSide | PlainSide | TrlSide) -> list[float]:
    side.load()
    side.warm_up()
    side.prepare()
    values: list[float] = side.run()["losses"]
    return values


@pytest.mark.slow
def test_the_same_losses_step_by_step() -> None:
    ours = losses(OurSide(WORK))
    assert len(ours) == 3
    assert ours[0] == pytest.approx(0.693147, abs=1e-5)
    assert abs(ours[-1] - ours[0]) > 1e-3
    assert losses(PlainSide(WORK)) == pytest.approx(ours, abs=2e-5)
    assert losses(TrlSide(WORK)) == pytest.approx(ours, abs=2e-5)


def report(seconds: float, peak_mb: float, loss: float) -> SideReport:
    return SideReport(
        seconds=(seconds, 2 * seconds),
        cpu_seconds=(seconds, seconds),
        outcome={"losses": [0.69, loss]},
        imports_mb=100.0,
        loaded_mb=200.0,
        peak_mb=peak_mb,
    )


def test_ratios_by_hand() -> None:
    benchmark = TrainBenchmark(
        work=WORK,
        threads=2,
        sides={
            "ours": report(2, 300, 0.5),
            "trl_dpo": report(10, 1200, 0.51),
            "plain_loop": report(4, 600, 0.5),
        },
    )
    printed = Result(benchmark=benchmark).to_json()
    assert printed["speedup_vs_trl_dpo"] == 5.0
    assert printed["speedup_vs_plain_loop"] == 2.0
    assert printed["memory_ratio_vs_trl_dpo"] == 0.25
    assert printed["memory_ratio_vs_plain_loop"] == 0.5
    assert printed["largest_loss_difference_vs_trl_dpo"] == pytest.approx(0.01)
    assert printed["sides"]["ours"]["tokens_per_second"] == WORK.num_tokens / 2
    assert NOTE in Result(benchmark=benchmark).to_text()


def test_tokens_count_the_prompt_in_both_sequences() -> None:
    pairs = WORK.pairs()
    assert len(pairs) == 6
    assert WORK.num_tokens == sum(
        2 * pair.chosen.scored_start + pair.chosen.num_scored + pair.rejected.num_scored for pair in pairs
    )


def test_the_defaults_are_the_stated_comparison() -> None:
    options = Options()
    assert (options.shape, options.batch_size, options.precision) == ("smollm2-135m", 8, "bfloat16")
