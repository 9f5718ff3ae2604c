from __future__ import annotations

from pathlib import Path

import pytest

from stepcredit.checkpoints import LoadOptions
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
