"""Runs in each of two processes: the train command as ``accelerate launch`` starts it with FSDP2.

accelerate shards over accelerators only, so each process takes its CPU for one; everything else is as
on a node of GPUs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed.tensor import DTensor

from stepcredit.cli import main
from stepcredit.training.trainer import PRMTrainer

RUNS = {
    "ce": ["--tokens-per-forward", "60", "--no-keep-best"],
    "tied": ["--max-grad-norm", "0.01"],
    "kto": ["--objective", "kto", "--layout", "packed"],
    "lora": ["--lora-rank", "2"],
    "lora-bfloat16": ["--lora-rank", "2", "--precision", "bfloat16"],
    "bfloat16": ["--precision", "bfloat16", "--gradient-checkpointing"],
    "head": ["--family", "value-head"],
}
SETTINGS = (
    "--device cpu --beta 0.5 --learning-rate 1e-3 --batch-size 7 --log-every 1 --warmup 0 --steps newline"
)
STOPPED_BEFORE = 3


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def command(models: tuple[str, str], graded: str, out: Path, name: str) -> list[str]:
    model = models[name == "tied"]
    words = ["train", graded, "--model", model, "--out", str(out / name), "--dev", graded]
    return [*words, *SETTINGS.split(), *RUNS[name]]


def pretend_accelerators() -> None:
    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda self, *_, **__: ("gloo", DistributedType.MULTI_GPU)


def training_step_of_sharded(stop: list[int]) -> Any:
    """The trainer's own step; the first looks at the parameters, the one in ``stop`` ends the run."""
    original = PRMTrainer.training_step

    def training_step(self: PRMTrainer, model: Any, *arguments: Any, **options: Any) -> Tensor:
        for name, parameter in model.named_parameters() if self.state.global_step == 0 else ():
            assert isinstance(parameter, DTensor), name
            # A value head's one row cannot be divided.
            assert parameter.to_local().numel() < parameter.numel() or len(parameter) == 1, name
        if self.state.global_step in stop:
            raise StoppedError
        return original(self, model, *arguments, **options)

    return training_step


def work(models: tuple[str, str], graded: str, out: Path) -> None:
    """What each of the processes does.

    Args:
        models: Directories of a model, and of one with tied embeddings.
        graded: Graded rollouts.
        out: Directory of what is trained.
    """
    pretend_accelerators()
    stop: list[int] = []
    PRMTrainer.training_step = training_step_of_sharded(stop)  # type: ignore[method-assign]
    for name in RUNS:
        assert main(command(models, graded, out, name)) == 0
    again = [*command(models, graded, out / "resumed", "ce"), "--save-every", "2"]
    stop.append(STOPPED_BEFORE)
    with pytest.raises(StoppedError):
        main(again)
    stop.clear()
    assert main(again) == 0
    torch.distributed.destroy_process_group()
