"""Training itself: from examples and models to the weights to keep."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor

from stepcredit.checkpoints import quiet
from stepcredit.runs import Ledger, warn
from stepcredit.scorers.kinds import get_kind
from stepcredit.training.budget import tokens_per_forward
from stepcredit.training.callbacks import LastLine, LogFile, TokenProgress, reporting_callbacks
from stepcredit.training.config import TrainConfig
from stepcredit.training.heldout import WHAT_TO_TRY, no_better_than_chance
from stepcredit.training.inputs import Inputs
from stepcredit.training.log import LOG_FILE, baseline_of, heldout_at, log_rows
from stepcredit.training.models import Models
from stepcredit.training.reference import StoredReference
from stepcredit.training.session import Session
from stepcredit.training.step_sums import StepSums
from stepcredit.training.trainer import PRMTrainer


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """What training gives.

    Attributes:
        step_rule: The rule that ``auto`` became.
        step_separator: What follows each step, where the format has a choice.
        log: The training log, one row per line of ``train_log.jsonl``.
        heldout: Held-out metrics of the kept weights; empty without held-out data.
        baseline: What rewards were compared with (KTO's z, BCO's shift): its mean over the steps, in how
            many it was 0, and of how many; empty where there is no such thing.
        seconds_before: Time that earlier parts of a resumed run took, up to its checkpoint.
        ledger: Tokens trained on and passed forward.
        state_dict: The whole weights where the model itself is sharded over processes; else ``None``.
    """

    model: Any
    tokenizer: Any
    step_rule: str
    step_separator: str | None
    counts: dict[str, int]
    log: list[dict[str, Any]]
    heldout: dict[str, float]
    kept_step: int
    baseline: dict[str, float]
    seconds_before: float
    ledger: Ledger = field(default_factory=Ledger)
    state_dict: dict[str, Tensor] | None = None


def fit(inputs: Inputs, models: Models, config: TrainConfig, session: Session) -> TrainedModel:
    """Train, from the session's checkpoint on if there is one.

    Raises:
        UserError: The loss is not finite, or a checkpoint cannot be written.
    """
    arguments, snapshot = session.arguments, session.snapshot
    sums = StepSums.read(snapshot, is_main=arguments.process_index == 0)
    progress = TokenProgress(round(inputs.data.epoch_tokens * config.epochs), sums)
    callbacks = _callbacks(Path(str(arguments.output_dir)), progress, config, bool(inputs.heldout))
    trainer = make_trainer(inputs, models, config, session, sums=sums, callbacks=callbacks)
    for unwanted in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(unwanted)
    with contextlib.closing(progress), quiet():
        trainer.train(resume_from_checkpoint=None if snapshot is None else str(snapshot))
        return _finished(trainer, inputs, models)


def make_trainer(
    inputs: Inputs,
    models: Models,
    config: TrainConfig,
    session: Session,
    *,
    sums: StepSums | None = None,
    callbacks: Sequence[Any] = (),
) -> PRMTrainer:
    """The trainer of a configuration.

    Args:
        sums: Where a checkpoint left the training log.
    """
    make_record = get_kind(config.family).record
    assert make_record is not None, config.family
    return PRMTrainer(
        models.policy,
        session.arguments,
        config=config,
        record=make_record(inputs.encoding, config.beta),
        data=inputs.data,
        reference=models.reference,
        heldout=inputs.heldout,
        sums=sums,
        tokens_per_forward=tokens_per_forward(models.policy, inputs.data, config, packed=models.packed),
        packed=models.packed,
        callbacks=callbacks,
    )


def _callbacks(work: Path, progress: TokenProgress, config: TrainConfig, has_heldout: bool) -> list[Any]:
    events = work.with_name(work.name.removesuffix(".partial") + ".tensorboard")
    reporting = reporting_callbacks(config.report_to, events)
    return [LogFile(work / LOG_FILE), progress, *reporting, LastLine(evaluates=has_heldout)]


def _finished(trainer: PRMTrainer, inputs: Inputs, models: Models) -> TrainedModel:
    """Take the weights to keep, and what the run says of itself."""
    kept_step = trainer.take_best()
    log = log_rows(trainer.state)
    heldout = heldout_at(log, kept_step)
    warning = no_better_than_chance(heldout)
    if warning is not None and trainer.is_world_process_zero():
        warn(f"{warning}: {WHAT_TO_TRY}")
    return TrainedModel(
        model=trainer.accelerator.unwrap_model(trainer.model),
        tokenizer=inputs.tokenizer,
        step_rule=inputs.step_rule,
        step_separator=getattr(inputs.encoding, "separator", None),
        counts=inputs.data.counts,
        log=log,
        heldout=heldout,
        kept_step=kept_step,
        baseline=baseline_of(log),
        seconds_before=trainer.sums.seconds_before,
        ledger=_ledger(trainer, models, log),
        state_dict=trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if trainer.is_fsdp_enabled
        else None,
    )


def _ledger(trainer: PRMTrainer, models: Models, log: Sequence[dict[str, Any]]) -> Ledger:
    evaluations = sum(any(name.startswith("heldout_") for name in row) for row in log)
    scored = evaluations * sum(len(example.encoded.token_ids) for example in trainer.heldout)
    if isinstance(models.reference, StoredReference):
        scored += models.reference.num_tokens
    if trainer.objective.needs_mismatched or trainer.objective.needs_batch_rewards:
        # Mismatched responses are a permutation of the responses, so they have as many tokens, but for those
        # that are cut at the longest sequence.
        scored += int(trainer.state.num_input_tokens_seen)
    return Ledger(
        model_parameters=sum(parameter.numel() for parameter in trainer.model_wrapped.parameters()),
        scored_tokens=scored,
        trained_tokens=int(trainer.state.num_input_tokens_seen),
    )
