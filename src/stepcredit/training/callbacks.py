# ruff: noqa: ARG002 - the events of transformers have fixed arguments.
"""What happens beside training: progress on stderr, the log file, a last evaluation."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stepcredit.errors import MissingExtraError
from stepcredit.runs import Progress, atomic_path


def reporting_callbacks(report_to: str, directory: Path) -> list[TrainerCallback]:
    """What writes to TensorBoard; others report through transformers itself.

    Args:
        report_to: ``none``, or the name of an optional package.
        directory: TensorBoard's event files.

    Raises:
        MissingExtraError: The package is not installed.
    """
    if report_to == "none":
        return []
    if find_spec(report_to) is None:
        raise MissingExtraError(report_to, report_to, needed_for=f"--report-to {report_to}")
    if report_to != "tensorboard":
        return []
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    return [TensorBoardCallback(tb_writer=SummaryWriter(log_dir=str(directory)))]


def log_rows(state: TrainerState) -> list[dict[str, Any]]:
    """The training log so far: numbers that JSON can hold, the step first."""
    rows = []
    for entry in state.log_history:
        if not any(name == "loss" or name.startswith("heldout_") for name in entry):
            continue
        values = {
            name: value
            for name, value in entry.items()
            if name != "step" and not (isinstance(value, float) and not math.isfinite(value))
        }
        rows.append({"step": entry["step"], **values})
    return rows


class LogFile(TrainerCallback):
    """Keeps ``train_log.jsonl`` up to date.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the log anew; it is short, and a resumed run must not repeat lines."""
        if state.is_world_process_zero:
            write_log(self.path, log_rows(state))


def write_log(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON Lines, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class TokenProgress(TrainerCallback):
    """Shows tokens done, tokens/s and time left.

    Args:
        total_tokens: Tokens of the whole run.
    """

    def __init__(self, total_tokens: int) -> None:
        self.total_tokens = total_tokens
        self._progress: Progress | None = None
        self._extra = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock."""
        if state.is_world_process_zero:
            done = int(state.num_input_tokens_seen)
            self._progress = Progress("train", self.total_tokens, "tokens", done=done)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Remember the newest loss and held-out AUC."""
        last = state.log_history[-1] if state.log_history else {}
        for name, label in (("loss", "loss"), ("heldout_auc", "held-out AUC")):
            if name in last:
                self._extra = f"{label} {last[name]:.3f}"

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Advance by the step's tokens."""
        if self._progress is not None:
            self._progress.advance(int(state.num_input_tokens_seen) - self._progress.done, self._extra)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show the last line."""
        if self._progress is not None:
            self._progress.__exit__(None, None, None)


class EvaluateAtEnd(TrainerCallback):
    """Asks for an evaluation after the last step, wherever it falls."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for it."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
