from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from stepcredit.checkpoints import LoadOptions
from stepcredit.errors import UserError
from stepcredit.training import session
from stepcredit.training.config import TrainConfig
from stepcredit.training.session import training_arguments


@pytest.mark.parametrize(
    ("steps", "warmup_steps"),
    [
        (1, 0),  # of the rising rate's first step, which is zero, nothing would be learnt
        (2, 1),
        (100, 3),
        (101, 4),
    ],
)
def test_a_share_of_the_steps_warms_up_but_never_all(steps: int, warmup_steps: int, tmp_path: Path) -> None:
    arguments = training_arguments(
        TrainConfig(epochs=1, warmup=0.03),
        tmp_path,
        LoadOptions(device="cpu"),
        seed=0,
        steps_per_epoch=steps,
        has_heldout=False,
    )
    assert arguments.max_steps == steps
    assert arguments.warmup_steps == warmup_steps


def arguments(device: str, work: Path) -> TrainingArguments:
    return training_arguments(
        TrainConfig(), work, LoadOptions(device=device), seed=0, steps_per_epoch=1, has_heldout=False
    )


def test_one_process_uses_one_of_several_accelerators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would cut each pass between copies of the model."""

    def two_accelerators(self: TrainingArguments) -> torch.device:
        self._n_gpu = 2
        return torch.device("cpu")

    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(two_accelerators))
    assert arguments("cpu", tmp_path).n_gpu == 1


def test_a_device_that_training_would_not_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "pick_device", str)
    with pytest.raises(UserError, match=r"--device: training would run on cpu, not on cuda:1"):
        arguments("cuda:1", tmp_path)
