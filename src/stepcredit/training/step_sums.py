"""What optimizer steps add up to between two lines of the training log; a checkpoint holds it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

_FILE = "step_sums.json"
_OF_A_SHARE = ("reward_right", "num_right", "reward_wrong", "num_wrong")
_OF_ALL = ("steps", "loss", "baseline", "baseline_zero", "num_baselines")
"""Sums of a process's share of the steps, and those that every process has alike."""


@dataclass(slots=True, kw_only=True)
class StepSums:
    """Sums over the steps since the last line of the training log, of this process.

    Attributes:
        steps: Optimizer steps.
        loss: Sum of the steps' mean losses, in float32 as transformers adds them up.
        reward_right: Sum of the rewards of right responses.
        reward_wrong: Sum of the rewards of wrong responses.
        baseline: Sum of what the objective compares rewards with (KTO's z, BCO's shift).
        baseline_zero: Steps in which that was 0.
        num_baselines: Steps with such a thing.
        newest_loss: Of the last step, in whichever line.
        seconds_before: Time that earlier parts of the run took, up to the checkpoint.
    """

    steps: int = 0
    loss: float = 0.0
    reward_right: float = 0.0
    num_right: float = 0.0
    reward_wrong: float = 0.0
    num_wrong: float = 0.0
    baseline: float = 0.0
    baseline_zero: int = 0
    num_baselines: int = 0
    newest_loss: float = 0.0
    seconds_before: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    def add_rewards(self, rewards: Tensor, labels: Tensor) -> None:
        """Count the rewards of some responses to their classes."""
        values, right = rewards.detach().double(), (labels > 0.5).double()
        sums = [(values * right).sum(), right.sum(), (values * (1 - right)).sum(), (1 - right).sum()]
        # One copy from the device, which waits for it.
        of_right, num_right, of_wrong, num_wrong = torch.stack(sums).tolist()
        self.reward_right += of_right
        self.num_right += num_right
        self.reward_wrong += of_wrong
        self.num_wrong += num_wrong

    def add_step(self, loss: float, baseline: float | None) -> None:
        """Count a step."""
        self.steps += 1
        self.newest_loss = loss
        self.loss = float(np.float32(self.loss) + np.float32(loss))
        if baseline is not None:
            self.num_baselines += 1
            self.baseline += baseline
            self.baseline_zero += baseline == 0

    def of_all_processes(self, number: int) -> StepSums:
        """The same over all processes; each must ask. Steps, losses and baselines are so already."""
        if number == 1:
            return self
        shares = gather_object([self])
        return replace(self, **{name: sum(getattr(share, name) for share in shares) for name in _OF_A_SHARE})

    def log_line(self) -> dict[str, float]:
        """Means since the last line, by the names that they have in the log."""
        line = {"loss": self.loss / self.steps}
        for name, total, number in (
            ("reward_right", self.reward_right, self.num_right),
            ("reward_wrong", self.reward_wrong, self.num_wrong),
        ):
            if number:
                line[name] = float(np.float32(total)) / number
        if self.num_baselines:
            line |= {"baseline": self.baseline / self.num_baselines, "baseline_zero": self.baseline_zero}
        return line

    def clear(self) -> None:
        """Begin anew, after a line."""
        for name in (*_OF_A_SHARE, *_OF_ALL):
            setattr(self, name, 0)

    def write(self, directory: Path) -> None:
        """Write it into a checkpoint."""
        content = {name: getattr(self, name) for name in (*_OF_A_SHARE, *_OF_ALL)}
        content["seconds_before"] = self.seconds_before + time.monotonic() - self._began
        (directory / _FILE).write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def read(cls, directory: Path | None, *, is_main: bool) -> StepSums:
        """What a checkpoint has; each process has its steps and losses, the main one the rewards.

        Args:
            directory: The checkpoint; ``None`` is the start.
        """
        if directory is None or not (directory / _FILE).is_file():
            return cls()
        sums = cls(**json.loads((directory / _FILE).read_text(encoding="utf-8")))
        if not is_main:
            for name in _OF_A_SHARE:
                setattr(sums, name, 0)
        return sums
