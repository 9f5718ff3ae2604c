"""FSDP2: the documented launch command, and two sharded processes that train as one whole does."""

from __future__ import annotations

import json
import os
import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, prepare_multi_gpu_env
from safetensors.torch import load_file
from tests.processes import run_ranks
from tests.training import sharded_worker
from tests.training.conftest import save_tiny_model
from transformers import AutoModelForCausalLM, TrainingArguments

from stepcredit.cli import main
from stepcredit.cli.parser import OneLineParser, add_settings
from stepcredit.data import read_rollouts, rollout_to_json, write_rows
from stepcredit.errors import UserError
from stepcredit.pipelines.train import Options
from stepcredit.recipes import recipe_path
from stepcredit.scorers import load_scorer
from stepcredit.settings import build
from stepcredit.training.sharding import is_sharded, prepare_launch
from stepcredit.training.snapshots import check_snapshot
from stepcredit.types import Rollout

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"


def launch_commands() -> list[list[str]]:
    """The words after ``accelerate launch`` in the guide and in the paper's recipe."""
    recipe = recipe_path("paper")
    assert recipe is not None
    texts = [DOCUMENT.read_text(encoding="utf-8"), recipe.read_text(encoding="utf-8").replace("\n# ", "\n")]
    blocks = [
        re.findall(r"^ *(accelerate launch .*)$", text.replace("\\\n", " "), re.MULTILINE) for text in texts
    ]
    assert all(blocks)
    return [shlex.split(line)[2:] for lines in blocks for line in lines]


def launch_environment(words: list[str]) -> dict[str, str]:
    """What the processes of a launched command find in their environment."""
    arguments = launch_command_parser().parse_args(words)
    arguments, _, _ = _validate_launch_command(arguments)
    environment: dict[str, str] = prepare_multi_gpu_env(arguments)
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(("FSDP_", "ACCELERATE_USE_FSDP"))
    }


@pytest.mark.parametrize("words", launch_commands(), ids=["guide", "recipe"])
def test_accelerate_reads_the_documented_command_as_fsdp_2(words: list[str]) -> None:
    arguments = launch_command_parser().parse_args(words)
    assert (arguments.module, arguments.training_script, arguments.num_processes) == (True, "stepcredit", 8)
    environment = launch_environment(words)
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    assert environment["FSDP_VERSION"] == "2"
    parser = OneLineParser()
    parser.add_argument("--config", type=Path)
    add_settings(parser, Options)
    command, *rest = arguments.training_script_args
    given = vars(parser.parse_args(rest))
    options = build(Options, given, given.pop("config"))
    assert command == "train"
    assert options.config.precision == "bfloat16"
    assert options.config.gradient_checkpointing


@pytest.mark.slow
def test_two_sharded_processes_train_as_one_whole_does(
    tiny_model: Path, rollouts: list[Rollout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graded = tmp_path / "graded.jsonl"
    write_rows(graded, map(rollout_to_json, rollouts))
    models = (str(tiny_model), str(save_tiny_model(tmp_path / "tied", tied=True)))
    environment = {**launch_environment(launch_commands()[0]), "ACCELERATE_TORCH_DEVICE": "cpu"}
    work = partial(sharded_worker.work, models, str(graded), tmp_path / "two")
    run_ranks(work, tmp_path / "log", environment)
    for name in sharded_worker.RUNS:
        assert main(sharded_worker.command(models, str(graded), tmp_path / "one", name)) == 0
        one, two = (tmp_path / side / name for side in ("one", "two"))
        rough = "bfloat16" in name
        assert_same_log(one, two, *((0.02, 0.02) if rough else (1e-4, 1e-5)))
        # Adam's steps have the learning rate's size, also where a gradient is all rounding.
        assert_same_weights(one, two, tolerance=1e-2 if rough else 1e-5)
        expected, actual = (list(load_scorer(prm).score_all(read_rollouts(graded))) for prm in (one, two))
        for score, other in zip(expected, actual, strict=True):
            assert other.reward == pytest.approx(score.reward, abs=0.05 if rough else 1e-3)
        if rough:  # rounded in the same way as the reference
            assert log(two)[0]["loss"] == pytest.approx(0.693147, abs=2e-4)
    assert_same_weights(tmp_path / "two" / "ce", tmp_path / "two" / "resumed" / "ce", tolerance=0.0)
    assert json.loads((tmp_path / "two/tied/config.json").read_text())["architectures"] == [
        "LlamaForCausalLM"
    ]
    tied = AutoModelForCausalLM.from_pretrained(tmp_path / "two" / "tied")
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight


def log(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "train_log.jsonl").read_text().splitlines()]


def assert_same_log(one: Path, two: Path, relative: float, absolute: float) -> None:
    assert len(log(one)) == len(log(two)) >= 4
    for expected, actual in zip(log(one), log(two), strict=True):
        numbers = {name: value for name, value in expected.items() if name in ("step", "loss", "grad_norm")}
        assert {name: actual[name] for name in numbers} == pytest.approx(
            numbers, rel=relative, abs=absolute
        ), one.name


def assert_same_weights(one: Path, two: Path, *, tolerance: float) -> None:
    (expected,), (actual,) = (list(directory.glob("*.safetensors")) for directory in (one, two))
    assert expected.name == actual.name
    weights, others = load_file(expected), load_file(actual)
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert others[name].dtype == value.dtype == torch.float32
        torch.testing.assert_close(others[name], value, rtol=0, atol=tolerance, msg=name)


class TestLaunch:
    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "environ", dict(os.environ))

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed.*--use_fsdp --fsdp_version 2"),
            ({"ACCELERATE_USE_FSDP": "true"}, "version 1.*--fsdp_version 2"),
            (
                {
                    "ACCELERATE_USE_FSDP": "true",
                    "FSDP_VERSION": "2",
                    "FSDP_ACTIVATION_CHECKPOINTING": "true",
                },
                "--gradient-checkpointing",
            ),
            ({"ACCELERATE_MIXED_PRECISION": "fp16"}, "fp16 was asked for, but.* bfloat16"),
        ],
    )
    def test_what_would_not_train_as_asked_is_refused(self, asked: dict[str, str], said: str) -> None:
        os.environ.update(asked)
        with pytest.raises(UserError, match=said):
            prepare_launch("bfloat16")

    def test_the_launchers_precision_must_be_the_runs(self) -> None:
        """Else accelerate runs the policy in bfloat16 and the reference stays in float32."""
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
        prepare_launch("bfloat16")
        with pytest.raises(UserError, match="--precision"):
            prepare_launch("float32")

    def test_every_process_loads_a_whole_model(self) -> None:
        """Else all but the first wait for the first's, and cannot compute their share of the reference."""
        asked = launch_environment(launch_commands()[0])
        assert asked["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "true"
        os.environ.update(asked)
        prepare_launch("bfloat16")
        assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"

    @pytest.mark.parametrize(
        ("kind", "processes", "sharded"),
        [
            (DistributedType.MULTI_GPU, 8, True),
            (DistributedType.MULTI_CPU, 2, False),
            (DistributedType.NO, 1, False),
        ],
    )
    def test_a_model_that_stays_whole_is_errors(
        self, kind: Any, processes: int, sharded: bool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Arguments:
            distributed_state = type("State", (), {"distributed_type": kind})
            process_index = 0
            world_size = processes

        arguments: TrainingArguments = Arguments()  # type: ignore[assignment]
        assert not is_sharded(arguments)
        assert capsys.readouterr().err == ""
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        assert is_sharded(arguments) == sharded
        warned = "FSDP was requested" in capsys.readouterr().err
        assert warned != sharded

    @pytest.mark.parametrize("was_sharded", [True, False])
    def test_a_run_does_not_go_on_from_checkpoints_of_the_other_kind(
        self, was_sharded: bool, tmp_path: Path
    ) -> None:
        (tmp_path / ("pytorch_model_fsdp_0" if was_sharded else "model.safetensors")).mkdir()
        check_snapshot(tmp_path, sharded=was_sharded)
        check_snapshot(None, sharded=was_sharded)
        with pytest.raises(UserError, match="as it was run before"):
            check_snapshot(tmp_path, sharded=not was_sharded)
