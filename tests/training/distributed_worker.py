"""Runs in each of two processes: the train command for several settings, then a sharded model's gradient."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from stepcredit.checkpoints import load_model, load_tokenizer
from stepcredit.cli import main
from stepcredit.data import read_rollouts
from stepcredit.encoding import ChatEncoding
from stepcredit.logprobs import enable_log_probs
from stepcredit.objectives import OBJECTIVES
from stepcredit.scorers.implicit import implicit_record
from stepcredit.steps import StepRule
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import make_training_set
from stepcredit.training.step_batches import make_forward_batch
from stepcredit.training.trainer import PRMTrainer

RUNS = {
    "ce": [],
    "kto": ["--objective", "kto"],
    "lora": ["--lora-rank", "2"],
}
RESUMED = ["--save-every", "2"]
STOPPED_BEFORE = 3
SETTINGS = "--device cpu --beta 0.5 --learning-rate 1e-3 --batch-size 7 --log-every 1 --warmup 0"


def command(model: str, graded: str, out: Path, extra: list[str]) -> list[str]:
    return ["train", graded, "--model", model, "--out", str(out), "--dev", graded, *SETTINGS.split(), *extra]


def sharded_differences(model_directory: str, graded: str) -> dict[str, float]:
    """Largest difference of each gradient between a model sharded over the processes and a whole one."""
    rank = torch.distributed.get_rank()
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    encoding = ChatEncoding(load_tokenizer(model_directory), StepRule("newline"))
    data = make_training_set(
        list(read_rollouts(graded)), encoding, OBJECTIVES["ce"], TrainConfig(objective="ce"), seed=0
    )

    def loss(model: Any, start: int, stop: int) -> torch.Tensor:
        examples = data.examples[start:stop]
        batch = make_forward_batch(examples, [example.encoded for example in examples], None)
        return OBJECTIVES["ce"].function(implicit_record(model, batch, beta=0.5)).losses.mean()

    whole: Any = load_model(model_directory, device="cpu")
    loss(whole, 0, 8).backward()
    sharded: Any = load_model(model_directory, device="cpu")
    enable_log_probs(sharded)
    for layer in sharded.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for name, parameter in sharded.named_parameters():
        assert isinstance(parameter, DTensor), name
        assert parameter.to_local().numel() < parameter.numel(), name
    loss(sharded, 4 * rank, 4 * rank + 4).backward()
    expected = {name: parameter.grad for name, parameter in whole.named_parameters()}
    return {
        name: float((parameter.grad.full_tensor() - expected[name]).abs().max() / expected[name].abs().max())
        for name, parameter in sharded.named_parameters()
    }


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def stop_midway(words: list[str]) -> None:
    """Run a command that ends before its third step, with a checkpoint of the second."""
    original = PRMTrainer.training_step

    def training_step(self: PRMTrainer, *arguments: Any, **options: Any) -> torch.Tensor:
        if self.state.global_step == STOPPED_BEFORE:
            raise StoppedError
        return original(self, *arguments, **options)

    PRMTrainer.training_step = training_step  # type: ignore[method-assign]
    with contextlib.suppress(StoppedError):
        main(words)
    PRMTrainer.training_step = original  # type: ignore[method-assign]


def work(model: str, graded: str, out: Path, differences_file: Path) -> None:
    """What each of the processes does.

    Args:
        model: Directory of a model.
        graded: Graded rollouts.
        out: Directory of what is trained.
        differences_file: Receives the differences of the gradients.
    """
    for name, extra in RUNS.items():
        assert main(command(model, graded, out / name, extra)) == 0
    stop_midway(command(model, graded, out / "stopped", RESUMED))
    differences = sharded_differences(model, graded)
    if torch.distributed.get_rank() == 0:
        differences_file.write_text(json.dumps(differences))
    torch.distributed.destroy_process_group()
