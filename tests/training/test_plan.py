"""Plans against sums worked out by hand, and counted from data where there are data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepcredit.checkpoints import LoadOptions, load_model
from stepcredit.data import rollout_to_json, write_rows
from stepcredit.errors import UserError
from stepcredit.training.config import TrainConfig
from stepcredit.training.plan import Plan, PlanOptions, Shape, Workload, make_plan
from stepcredit.training.sizing import plan_run
from stepcredit.types import Rollout

SHAPE = Shape(parameters=1e9, layers=10, width=1000)
WORK = Workload(examples=100, units=100, unit_tokens=50_000, example_tokens=50_000)


def plan(work: Workload = WORK, machine: dict[str, Any] | None = None, **settings: Any) -> Plan:
    config = TrainConfig(**{"batch_size": 8, "epochs": 2.0, **settings})
    options = PlanOptions(**{"devices": 4, "device_flops": 1e12, "utilisation": 0.5, **(machine or {})})
    return make_plan(config, options, SHAPE, work, tokens_per_forward=1000)


def test_steps_tokens_operations_and_hours() -> None:
    # 13 steps an epoch; 6e9 operations a token in 100,000 tokens, and 2e9 in 50,000 for the reference;
    # 4 devices at half of 1e12.
    estimate = plan()
    assert (estimate.steps, estimate.tokens) == (26, 100_000)
    assert estimate.training_flops == pytest.approx(6e14)
    assert estimate.reference_flops == pytest.approx(1e14)
    assert estimate.hours == pytest.approx(7e14 / 2e12 / 3600)


def test_memory_is_the_states_share_the_activations_and_a_piece_of_logits() -> None:
    # 16e9 / 4 bytes of states; 34 bytes x 1000 tokens x 10 layers x width 1000, doubled in float32; 32 MiB.
    expected = 4e9 + 2 * 34 * 1000 * 10 * 1000 + 32 * 2**20
    assert plan().device_memory_gib == pytest.approx(expected / 2**30)
    recomputed = 4e9 + (2 * 10 + 34) * 1000 * 1000 + 32 * 2**20
    estimate = plan(precision="bfloat16", gradient_checkpointing=True)
    assert estimate.device_memory_gib == pytest.approx(recomputed / 2**30)


def test_what_costs_more_and_what_less() -> None:
    assert plan(gradient_checkpointing=True).training_flops == pytest.approx(8e14)
    assert plan(lora_rank=8).training_flops == pytest.approx(4e14)
    mismatched = Workload(examples=100, units=100, unit_tokens=5e4, example_tokens=5e4, mismatched=True)
    assert plan(mismatched).training_flops == pytest.approx(8e14)
    assert plan(mismatched).reference_flops == pytest.approx(2e14)
    assert plan(live_reference=True).reference_flops == pytest.approx(2e14)
    assert plan(reference_free=True).reference_flops == 0
    assert plan(family="value-head").reference_flops == 0


def test_it_says_whether_it_fits() -> None:
    assert plan().fits is None
    assert plan(machine={"device_memory": 80.0}).fits is True
    assert plan(machine={"device_memory": 2.0}).fits is False
    assert "does NOT fit" in plan(machine={"device_memory": 2.0}).to_text()


def test_data_and_model_are_counted_where_they_are_there(
    tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
) -> None:
    graded = tmp_path / "graded.jsonl"
    write_rows(graded, map(rollout_to_json, rollouts))
    load = LoadOptions(device="cpu")
    estimate = plan_run(graded, str(tiny_model), TrainConfig(objective="dpo"), PlanOptions(), load, 0)
    assert estimate.assumptions["parameters"] == load_model(tiny_model, device="cpu").num_parameters()
    assert estimate.examples == 24
    assert estimate.units == 9
    assert estimate.assumptions["data_counted"] is True
    assert estimate.counts["prompts_all_wrong"] == 3


def test_what_is_neither_there_nor_stated_is_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    load = LoadOptions(device="cpu")
    with pytest.raises(UserError, match="--examples and --mean-tokens"):
        plan_run(tmp_path / "none", str(tiny_model), TrainConfig(), PlanOptions(), load, 0)
    with pytest.raises(UserError, match="--model-parameters"):
        stated = PlanOptions(examples=1, mean_tokens=1.0)
        plan_run(tmp_path / "none", str(tmp_path / "nowhere"), TrainConfig(), stated, load, 0)


def test_sizes_beyond_any_float_are_one_line(tmp_path: Path) -> None:
    stated = PlanOptions(
        examples=10**400, mean_tokens=2.0, model_parameters=1e9, model_layers=2, model_width=8
    )
    with pytest.raises(UserError, match="is too large to represent"):
        plan_run(tmp_path / "none", "nowhere", TrainConfig(), stated, LoadOptions(device="cpu"), 0)
