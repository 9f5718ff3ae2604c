from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, planned, run_twice

from stepcredit.pipelines.driver import Store
from stepcredit.runs import Manifest, manifest_path, write_json
from stepcredit_study.claims.inference_cost import (
    ADAPTER,
    CACHED,
    EXPERIMENT,
    FREE,
    LIVE,
    ORDINARY,
    PASSES,
    at_paper_sizes,
    conclude,
    fastest,
    measure,
)
from stepcredit_study.claims.inference_cost import Files as InferenceFiles
from stepcredit_study.frame.scale import Scale, read_scale
from stepcredit_study.frame.world import World

TIMES = {ORDINARY: 2.0, LIVE: 3.0, CACHED: 2.05, FREE: 2.0, ADAPTER: 3.0}


def numbers(name: str) -> float:
    """As many reads as passes, and nothing else."""
    way, _, what = name.rpartition("/")
    way = way.rpartition("/")[2]
    if what == "operations":
        return 1.0 + PASSES[way]
    return TIMES.get(way, 1.0)


def test_time_in_proportion_to_reads_gives_the_expected_verdicts(tiny_scale: Scale) -> None:
    finding = conclude(made_up(numbers), tiny_scale)
    assert check_of(finding, "live reference").verdict == "holds"
    assert check_of(finding, "cached reference").verdict == "holds"
    assert check_of(finding, "No reference").verdict == "holds"
    adapter = check_of(finding, "adapter")
    assert adapter.verdict == "does not hold"
    assert "reads each response twice" in adapter.why
    assert check_of(finding, "larger the generator").verdict == "not measured"


def test_a_reference_that_takes_no_time_fails_the_first_claim(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: 2.1 if LIVE in name and name.endswith("time") else numbers(name))
    assert check_of(conclude(seeds, tiny_scale), "live reference").verdict == "does not hold"


def test_generators_of_several_sizes_are_compared(tiny_scale: Scale) -> None:
    seeds = made_up(lambda name: numbers(name) + (1.0 if name.startswith("weak/") else 0.0))
    check = check_of(conclude(seeds, tiny_scale), "larger the generator")
    assert check.verdict == "holds"
    assert "time is lower by 100.0" in check.here


def test_operations_at_the_papers_sizes_follow_from_the_numbers_of_parameters() -> None:
    # 8.03 / 7.24, 8.03 / 8.03 and 8.03 / 70.6 of generation for each read.
    assert at_paper_sizes(ORDINARY) == "211 / 200 / 111"
    assert at_paper_sizes(LIVE) == "322 / 300 / 123"


def test_the_fastest_turn_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.1, 1.0, 4.0, 4.0, 6.0])
    monkeypatch.setattr("time.process_time", lambda: next(clock))
    consumed: list[int] = []

    def work() -> Iterator[int]:
        for number in range(3):
            consumed.append(number)
            yield number

    assert fastest({"work": work}, turns=2) == {"work": 2.0}
    assert consumed == [0, 1, 2] * 3


def test_at_the_papers_scale_device_seconds_of_the_commands_are_compared(tmp_path: Path) -> None:
    """Generation takes 4 engines of 2 devices, scoring one device for four times as long."""
    scale = replace(
        read_scale("paper"), policy={"generator": "vllm", "tensor_parallel": 2, "data_parallel": 4}
    )

    def timed(name: str, seconds: float) -> Path:
        path = tmp_path / name
        path.touch()
        write_json(manifest_path(path), Manifest("sample", {}, notes={"wall_seconds": seconds}).to_json())
        return path

    files = InferenceFiles(
        models={},
        prompts=tmp_path,
        generated={name: timed(f"{name}.jsonl", 50.0) for name in scale.generators},
        scores={name: {LIVE: timed(f"{name}-live.jsonl", 200.0)} for name in scale.generators},
    )
    measured = measure(World(scale, Store(tmp_path), seed=0), files)
    assert measured[f"llama-70b/{LIVE}/time"] == 1.5
    assert measured[f"{LIVE}/time"] == 1.5
    assert measured[f"llama-70b/{LIVE}/operations"] == pytest.approx(1 + 2 * 8.03 / 70.6)


def test_what_is_timed_is_told_for_each_scale(tiny_scale: Scale) -> None:
    generators = tiny_scale.generators
    paper = replace(read_scale("paper"), generators=generators)
    assert "processor time" in conclude(made_up(numbers), tiny_scale).differs
    assert "device-seconds" in conclude(made_up(numbers), paper).differs


def test_the_papers_scale_is_planned(tmp_path: Path) -> None:
    commands = planned(EXPERIMENT, tmp_path)
    assert commands.count("train") == 3
    assert commands.count("score") == 3 * 4


@pytest.mark.slow
def test_on_a_tiny_lab(tiny_world: World) -> None:
    measured, finding = run_twice(EXPERIMENT, tiny_world)
    for policy in tiny_world.scale.generators:
        for way, passes in PASSES.items():
            assert measured[f"{policy}/{way}/time"] > 1
            # The adapter and the head have a few parameters of their own.
            assert measured[f"{policy}/{way}/operations"] == pytest.approx(1 + passes, rel=0.1)
    assert measured["threads"] >= 1
    assert finding.notes
