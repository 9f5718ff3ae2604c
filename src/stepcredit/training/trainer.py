"""The trainer of every reward model: ``transformers.Trainer`` with exact batches and an objective.

One item of the data loader is one optimizer step's batch. It is cut into forward passes by a token
budget, and each loss is divided by the size of the whole batch, so the gradient does not depend on how
many passes or processes share the work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from stepcredit.errors import UserError
from stepcredit.objectives import Objective, ObjectiveInput, ObjectiveSettings, get_objective
from stepcredit.scorers.forward_batch import ForwardBatch
from stepcredit.scorers.kind import Record
from stepcredit.training.batches import Cut, EpochSampler
from stepcredit.training.casting import cast_once
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import Example, TrainingSet
from stepcredit.training.finite import check_finite, check_heldout_finite
from stepcredit.training.heldout import heldout_metrics
from stepcredit.training.sharding import set_precision
from stepcredit.training.snapshots import BEST, save_snapshot
from stepcredit.training.step_batches import ReferenceLogProbs, StepBatch, lay_out, make_step_batch
from stepcredit.training.step_sums import StepSums


class PRMTrainer(Trainer):
    """Trains a reward model of any kind with any objective.

    Args:
        args: Training arguments; batch size and accumulation in them are not used.
        config: Objective, batches, and which weights are kept; ``args`` have the rest of it.
        record: Runs the model and says what its outputs mean.
        reference: Gives reference log-probabilities; ``None`` where there is none.
        sums: Where a checkpoint left the training log; by default at its start.
        tokens_per_forward: Most tokens of one forward pass, padding included.
        packed: Lay sequences out in one row, for models that
            :func:`~stepcredit.logprobs.enable_packing` holds for.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        config: TrainConfig,
        record: Record,
        data: TrainingSet,
        reference: ReferenceLogProbs | None,
        heldout: Sequence[Example] = (),
        sums: StepSums | None = None,
        tokens_per_forward: int,
        packed: bool = False,
        callbacks: Sequence[Any] = (),
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=range(len(data.units)),
            eval_dataset=list(heldout) if heldout else None,
            callbacks=list(callbacks),
        )
        if self.is_fsdp_enabled:
            set_precision(self.accelerator, bfloat16=args.bf16)
        self.config = config
        self.make_record = record
        self.objective: Objective = get_objective(config.objective)
        self.objective_settings = ObjectiveSettings(
            **{item.name: getattr(config, item.name) for item in fields(ObjectiveSettings)}
        )
        self.data = data
        self.reference = reference
        self.heldout = tuple(heldout)
        self.tokens_per_forward = tokens_per_forward
        self.packed = packed
        self.sums = sums or StepSums()
        self._heldout_forwards: list[tuple[tuple[int, ...], ForwardBatch]] | None = None

    # Batches -----------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One item per step; not sharded by accelerate, since each process cuts its own share."""
        sampler = EpochSampler(
            self.data.groups(by_prompt=self.config.group_prompts),
            self.config.batch_size,
            seed=self.args.seed,
            epoch=self._current_epoch,
        )
        return DataLoader(
            range(len(self.data.units)),  # type: ignore[arg-type]
            batch_sampler=sampler,
            collate_fn=self.make_step_batch,
        )

    def _current_epoch(self) -> int:
        steps = -(-len(self.data.units) // self.config.batch_size)
        return int(self.state.global_step) // steps

    def make_step_batch(self, units: Sequence[int]) -> StepBatch:
        """Lay out this process's share of a step."""
        return make_step_batch(
            self.data,
            units,
            self.reference,
            with_mismatched=self.objective.needs_mismatched,
            cut=self._cut,
        )

    @property
    def _cut(self) -> Cut:
        return Cut(
            token_budget=self.tokens_per_forward,
            packed=self.packed,
            process=self.args.process_index,
            num_processes=self.args.world_size,
        )

    def _get_num_items_in_batch(self, *_: Any) -> None:
        # Losses are divided by the size of the whole step in `_accumulate` already.
        return None

    # Steps -------------------------------------------------------------------------------------------

    def training_step(  # type: ignore[override]
        self, model: nn.Module, inputs: StepBatch, *_: Any, **__: Any
    ) -> Tensor:
        """Forward and backward of one step's share; returns its part of the step's mean loss."""
        if not self.args.bf16 or self.is_fsdp_enabled:
            return self._accumulate(model, inputs)
        assert self.model is not None
        with cast_once(self.accelerator, self.model):
            return self._accumulate(model, inputs)

    def _accumulate(self, model: nn.Module, inputs: StepBatch) -> Tensor:
        batch_fields = self._batch_fields(model, inputs)
        size = inputs.num_labels if self.objective.per_label else inputs.num_units
        model.train()
        parts = []
        baseline = None
        for number, forward in enumerate(inputs.forwards, 1):
            last = number == len(inputs.forwards)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model=model):
                forward = forward.to(self.args.device)
                record = self._record(model, forward, batch_fields)
                output = self.objective.function(record)
                check_finite(output.losses.detach(), forward.ids)
                # Processes' gradients are averaged, so each scales up by their number.
                loss = output.losses.sum() * (forward.counted * self.args.world_size / size)
                self.accelerator.backward(loss)
            parts.append(loss.detach())
            baseline = output.baseline
            if forward.counted:
                self.sums.add_rewards(record.rewards, record.labels)
        self.state.num_input_tokens_seen += inputs.num_tokens
        loss = torch.stack(parts).sum()
        of_all = self.accelerator.reduce(loss, "mean") if self.args.world_size > 1 else loss
        self.sums.add_step(float(of_all), None if baseline is None else float(baseline))
        return loss

    def _record(self, model: nn.Module, forward: ForwardBatch, extra: dict[str, Any]) -> ObjectiveInput:
        record = self.make_record(model, forward)
        return replace(record, **extra, settings=self.objective_settings)

    def _batch_fields(self, model: nn.Module, inputs: StepBatch) -> dict[str, Any]:
        """What the objective needs to know of the whole batch of all processes."""
        known: dict[str, Any] = {}
        if self.objective.needs_mismatched:
            known["mismatched_rewards"], _ = self._rewards_of_batch(model, inputs.mismatched)
        if self.objective.needs_batch_rewards:
            known["batch_rewards"], known["batch_labels"] = self._rewards_of_batch(model, inputs.forwards)
        return known

    def _rewards_of_batch(self, model: nn.Module, forwards: Sequence[ForwardBatch]) -> tuple[Tensor, Tensor]:
        rewards: list[tuple[float, float]] = []
        dtype = torch.float32
        for forward, record in self._evaluated(model, forwards):
            dtype = record.rewards.dtype
            if forward.counted:
                rewards += zip(record.rewards.tolist(), record.labels.tolist(), strict=True)
        if self.args.world_size > 1:
            rewards = gather_object(rewards)
        both = torch.tensor(rewards, dtype=dtype, device=self.args.device)
        return both[:, 0], both[:, 1]

    @torch.no_grad()
    def _evaluated(
        self, model: nn.Module, forwards: Sequence[ForwardBatch]
    ) -> list[tuple[ForwardBatch, ObjectiveInput]]:
        """Records in evaluation mode, without gradients."""
        was_training = model.training
        model.eval()
        try:
            moved = [forward.to(self.args.device) for forward in forwards]
            return [(forward, self.make_record(model, forward)) for forward in moved]
        finally:
            model.train(was_training)

    def floating_point_ops(self, inputs: StepBatch) -> int:  # type: ignore[override]
        """Operations of a step: 6 for each parameter and token."""
        parameters = sum(parameter.numel() for parameter in self.model_wrapped.parameters())
        return 6 * parameters * inputs.num_tokens

    # Logs --------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Take losses and rewards from the sums, which survive a kill, and add the tokens seen."""
        if "loss" in logs:
            logs.update(self.sums.of_all_processes(self.args.world_size).log_line())
            logs["tokens"] = int(self.state.num_input_tokens_seen)
            self.sums.clear()
        super().log(logs, start_time)

    # Held-out data -----------------------------------------------------------------------------------

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Held-out metrics, under ``heldout_`` names; a new best AUC is kept on disk."""
        metrics = {f"heldout_{name}": value for name, value in self.heldout_now().items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self._keep_if_best(metrics)
        return metrics

    def heldout_now(self) -> dict[str, float]:
        """Metrics of the current weights."""
        examples = self.heldout
        if self._heldout_forwards is None:
            self._heldout_forwards = lay_out(examples, self.reference, self._cut)
        rows: list[tuple[int, float, float]] = []
        has_log_ratios = False
        for units, forward in self._heldout_forwards:
            ((_, record),) = self._evaluated(self.model_wrapped, [forward])
            has_log_ratios = record.log_ratios is not None
            sums = record.rewards if record.log_ratios is None else record.log_ratios.sum(dim=1)
            if forward.counted:
                rows += zip(units, record.rewards.tolist(), sums.tolist(), strict=True)
        if self.args.world_size > 1:
            rows = gather_object(rows)
        rewards, log_ratio_sums = np.zeros(len(examples)), np.zeros(len(examples))
        for index, reward, log_ratio_sum in rows:
            rewards[index], log_ratio_sums[index] = reward, log_ratio_sum
        check_heldout_finite(rewards)
        return heldout_metrics(
            rewards,
            np.array([example.label for example in examples]),
            [example.prompt_id for example in examples],
            np.array([example.encoded.num_scored for example in examples], dtype=np.float64),
            log_ratio_sums if has_log_ratios else None,
        )

    def _keep_if_best(self, metrics: dict[str, float]) -> None:
        value = metrics.get("heldout_auc")
        if value is None:
            return
        best = self.state.best_metric
        if best is None or value > best:
            self.state.best_metric, self.state.best_global_step = value, self.state.global_step
            if self.config.keep_best:
                save_snapshot(self, BEST, weights_only=True)
        elif self.config.patience is not None:
            evaluated = [row["step"] for row in self.state.log_history if "heldout_auc" in row]
            since = len({step for step in evaluated if step > (self.state.best_global_step or 0)})
            if since >= self.config.patience:
                self.control.should_training_stop = True
                if self.sums.steps:
                    self.log({"loss": 0.0})

    def take_best(self) -> int:
        """Load the weights with the best held-out AUC, of this part of the run or an earlier one.

        Returns:
            Their step; the last one where none were kept.

        Raises:
            UserError: They are no longer there.
        """
        best = self.state.best_global_step
        if not self.config.keep_best or not best:
            return int(self.state.global_step)
        # A checkpoint's own path may be relative to another folder; transformers would keep the last weights.
        directory = Path(str(self.args.output_dir)) / BEST
        if not directory.is_dir():
            raise UserError(
                f"is gone: the weights of step {best}, which have the best held-out AUC",
                where=directory,
                hint="restore it, or pass --overwrite to start over",
            )
        self.state.best_model_checkpoint = str(directory)
        self._load_best_model()
        return int(best)

    def _determine_best_metric(self, *_: Any, **__: Any) -> bool:
        # `evaluate` has kept the best weights already, also where no checkpoint is due.
        return False

    def _save_checkpoint(self, *_: Any, **__: Any) -> None:
        save_snapshot(self, f"checkpoint-{self.state.global_step}")
