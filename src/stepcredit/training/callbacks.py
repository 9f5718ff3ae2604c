# ruff: noqa: ARG002 - the events of transformers have fixed arguments.
"""What happens beside training: progress on stderr, the log file, a last line in it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stepcredit.errors import MissingExtraError
from stepcredit.runs import Progress
from stepcredit.training.log import log_rows, write_log
from stepcredit.training.step_sums import StepSums


def reporting_callbacks(report_to: str, directory: Path) -> list[TrainerCallback]:
    """What writes to TensorBoard; others report through transformers itself.

    Args:
        report_to: ``none``, or the name of an optional package.

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


class LogFile(TrainerCallback):
    """Keeps ``train_log.jsonl`` up to date."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the log anew; it is short, and a resumed run must not repeat lines."""
        if state.is_world_process_zero:
            write_log(self.path, log_rows(state))


class TokenProgress(TrainerCallback):
    """Shows tokens done, tokens/s and time left, the newest step's loss and the newest held-out AUC.

    Args:
        total_tokens: Tokens of the whole run.
        sums: Where the trainer adds up its losses.
    """

    def __init__(self, total_tokens: int, sums: StepSums) -> None:
        self.total_tokens, self.sums = total_tokens, sums
        self._progress: Progress | None = None
        self._heldout = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock."""
        if state.is_world_process_zero:
            done = int(state.num_input_tokens_seen)
            self._progress = Progress("train", self.total_tokens, "tokens", done=done)
            self._progress.__enter__()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Remember the newest held-out AUC."""
        last = state.log_history[-1] if state.log_history else {}
        if "heldout_auc" in last:
            self._heldout = f", held-out AUC {last['heldout_auc']:.3f} at step {last['step']}"

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Advance by the step's tokens."""
        self._advance(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show the last line, with what was evaluated after the last step."""
        self._advance(state)
        self.close()

    def _advance(self, state: TrainerState) -> None:
        if self._progress is not None:
            step = f"step {state.global_step}/{state.max_steps}, loss {self.sums.newest_loss:.3f}"
            tokens = int(state.num_input_tokens_seen) - self._progress.done
            self._progress.advance(tokens, step + self._heldout)

    def close(self) -> None:
        """Leave the terminal as it was, also where training ends by an error."""
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None


class LastLine(TrainerCallback):
    """Asks for lines of the log and checkpoints as often as configured, and for a line after the last step.

    A run that is resumed would go on as often as its checkpoint says.
    """

    def __init__(self, *, evaluates: bool) -> None:
        self.evaluates = evaluates

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take what is configured now."""
        state.compute_steps(args, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for the last line, and for an evaluation."""
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = self.evaluates
