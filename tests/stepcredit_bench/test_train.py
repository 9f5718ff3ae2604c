from __future__ import annotations

from dataclasses import replace

import pytest

from stepcredit.errors import UserError
from stepcredit_bench.limit import num_parameters
from stepcredit_bench.processes import SideReport
from stepcredit_bench.train import NOTE, Options, Result, run
from stepcredit_bench.training import OurSide, PlainSide, TrlSide
from stepcredit_bench.training_report import TrainBenchmark, sides_of
from stepcredit_bench.training_work import TrainWork

WORK = TrainWork(
    shape="tiny", steps=3, batch_size=2, learning_rate=1e-3, precision="float32", tokens_per_forward=500
)
GROUPS = replace(WORK, workload="group", steps=2, batch_size=1, tokens_per_forward=None)


def losses(side: OurSide | PlainSide | TrlSide) -> list[float]:
    side.load()
    side.warm_up()
    side.prepare()
    values: list[float] = side.run()["losses"]
    return values


@pytest.mark.slow
@pytest.mark.parametrize("work", [WORK, GROUPS, replace(GROUPS, objective="ce")])
def test_the_same_losses_step_by_step(work: TrainWork) -> None:
    ours = losses(OurSide(work))
    assert len(ours) == work.steps
    assert ours[0] == pytest.approx(0.693147, abs=1e-5)
    assert abs(ours[-1] - ours[0]) > 1e-3
    for side in list(sides_of(work).values())[1:]:
        assert losses(side(work)) == pytest.approx(ours, abs=2e-5)


def test_who_takes_part() -> None:
    assert list(sides_of(WORK)) == ["ours", "trl_dpo", "plain_loop"]
    assert list(sides_of(GROUPS)) == ["ours", "trl_dpo"]
    assert list(sides_of(replace(GROUPS, objective="ce"))) == ["ours", "plain_loop"]


def test_a_group_is_sixteen_pairs_of_eight_responses() -> None:
    assert (GROUPS.units_per_step, len(GROUPS.data.examples)) == (16, 16)
    assert len(set(GROUPS.sequences_of_step(1))) == 8
    alone = replace(GROUPS, objective="ce")
    assert (alone.units_per_step, alone.unit) == (8, "response")


def test_what_is_common_is_counted_once() -> None:
    group = [example.encoded for example in GROUPS.data.examples[:8]]
    prompt = group[0].scored_start
    tokens = prompt + sum(item.num_scored for item in group)
    one_step = replace(GROUPS, steps=1)
    shared, separate = (one_step.operations(shared=how) for how in (True, False))
    assert 4 * (tokens - prompt) / tokens < separate / shared < 6
    # The optimizer once, and the gradients of two further passes.
    assert one_step.bytes_moved(3) == num_parameters("tiny") * (28 + 2 * 12)


def report(seconds: float, peak_mb: float, loss: float) -> SideReport:
    return SideReport(
        seconds=(seconds, 2 * seconds),
        cpu_seconds=(seconds, seconds),
        outcome={"losses": [0.69, loss], "tokens_per_forward": 500, "passes": 4},
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
        rates={"products_per_second": 1e9, "bytes_per_second": 1e10},
    )
    printed = Result(benchmark=benchmark).to_json()
    assert printed["speedup_vs_trl_dpo"] == 5.0
    assert printed["speedup_vs_plain_loop"] == 2.0
    assert printed["memory_ratio_vs_trl_dpo"] == 0.25
    assert printed["memory_ratio_vs_plain_loop"] == 0.5
    assert printed["largest_loss_difference_vs_trl_dpo"] == pytest.approx(0.01)
    assert printed["processor_ratio_vs_plain_loop"] == 2.0
    ours = printed["sides"]["ours"]
    assert (ours["tokens_per_second"], ours["units_per_second"]) == (WORK.num_tokens / 2, 3)
    # Two threads for two processor seconds.
    assert ours["utilisation"] == pytest.approx(WORK.operations(shared=True) / 1e9)
    expected = WORK.operations(shared=True) / 1e9 + WORK.bytes_moved(4) / 1e10
    assert printed["predicted_seconds"] == pytest.approx(expected)
    assert NOTE in Result(benchmark=benchmark).to_text()


def test_tokens_count_the_prompt_in_both_sequences() -> None:
    assert len(WORK.data.units) == 6
    assert WORK.num_tokens == sum(len(example.encoded.token_ids) for example in WORK.data.examples)


def test_the_defaults_are_the_stated_comparison() -> None:
    options = Options()
    assert (options.shape, options.workload, options.precision) == ("smollm2-135m", "pairs", "bfloat16")
    assert (options.batch_size, options.others_per_pass) == (None, 8)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (Options(workload="group", responses=3), "--responses"),
        (Options(workload="group", others_per_pass=5), "--others-per-pass"),
        (Options(batch_size=0), "--batch-size"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_loaded(options: Options, flag: str) -> None:
    with pytest.raises(UserError) as refused:
        run(options)
    assert refused.value.where == flag
