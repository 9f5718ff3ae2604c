"""Training from rollouts to a model: encode, reference pass, train, keep the best."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from torch import Tensor
from transformers import TrainingArguments

from stepcredit.checkpoints import LoadOptions, check_vocabulary, load_tokenizer, quiet, resolve
from stepcredit.encoding import Encoding
from stepcredit.errors import DataError, UserError
from stepcredit.objectives import ObjectiveSettings, get_objective
from stepcredit.runs import Ledger, warn
from stepcredit.scorers.kinds import get_kind
from stepcredit.training.arguments import training_arguments
from stepcredit.training.callbacks import (
    LastLine,
    LogFile,
    TokenProgress,
    log_rows,
    reporting_callbacks,
)
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import Example, TrainingSet, encode_examples, make_training_set
from stepcredit.training.heldout import WHAT_TO_TRY, no_better_than_chance
from stepcredit.training.models import (
    has_own_network,
    load_policy,
    packs,
    reference_log_probs,
    token_budget,
)
from stepcredit.training.preparation import choose_step_rule, context_length
from stepcredit.training.reference import StoredReference
from stepcredit.training.sharding import is_sharded, prepare_launch
from stepcredit.training.snapshots import check_snapshot, last_snapshot
from stepcredit.training.step_batches import ReferenceLogProbs
from stepcredit.training.step_sums import StepSums
from stepcredit.training.trainer import PRMTrainer
from stepcredit.types import Encoded, Rollout

LOG_FILE = "train_log.jsonl"


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """What training gives.

    Attributes:
        model: With the weights to keep.
        tokenizer: Its tokenizer.
        step_rule: The rule that ``auto`` became.
        counts: Examples in, left out (and why), used.
        log: The training log, one row a line of ``train_log.jsonl``.
        heldout: Held-out metrics of the kept weights; empty without held-out data.
        kept_step: Optimizer step of the kept weights.
        baseline: What rewards were compared with (KTO's z, BCO's shift): its mean over the steps, in how
            many it was 0, and of how many; empty where there is no such thing.
        ledger: Tokens trained on and passed forward.
        state_dict: The whole weights where the model itself is sharded over processes; else ``None``.
    """

    model: Any
    tokenizer: Any
    step_rule: str
    counts: dict[str, int]
    log: list[dict[str, Any]]
    heldout: dict[str, float]
    kept_step: int
    baseline: dict[str, float]
    ledger: Ledger = field(default_factory=Ledger)
    state_dict: dict[str, Tensor] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    """What training reads: examples in the format of the kind."""

    tokenizer: Any
    encoding: Encoding
    step_rule: str
    data: TrainingSet
    heldout: list[Example]

    @property
    def sequences(self) -> list[Encoded]:
        """All that the reference will be asked for."""
        examples = (*self.data.examples, *self.heldout)
        return [*(example.encoded for example in examples), *self.data.mismatched]


def train_prm(
    rollouts: Iterable[Rollout],
    *,
    model: str | Path,
    config: TrainConfig,
    work: str | Path,
    heldout: Iterable[Rollout] = (),
    reference: str | Path | None = None,
    load: LoadOptions | None = None,
    cache: str | Path | None = None,
    seed: int = 0,
) -> TrainedModel:
    """Train a reward model; goes on from the last checkpoint in ``work`` if there is one.

    Args:
        rollouts: Graded responses (with step labels for step objectives).
        model: Initial weights: a directory or hub id.
        config: Settings.
        work: Directory for checkpoints and the log; its owner removes it.
        heldout: Graded responses for held-out metrics and the choice of weights.
        reference: Reference model; the initial weights by default.
        load: How models are loaded.
        cache: Directory of a cache of log-probabilities, shared by runs and commands.
        seed: Seed of data order, pairs, adapters and dropout.

    Raises:
        UserError: Data, models or processes cannot be used as asked; or the loss is not finite.
    """
    load = load or LoadOptions()
    work = Path(work)
    prepare_launch(config.precision)
    transformers.set_seed(seed)
    inputs = _read(rollouts, heldout, model, config, load, seed)
    has_heldout = bool(inputs.heldout)
    steps_per_epoch = math.ceil(len(inputs.data.units) / config.batch_size)
    arguments = training_arguments(
        config, work, load, seed=seed, steps_per_epoch=steps_per_epoch, has_heldout=has_heldout
    )
    snapshot = last_snapshot(work)
    sharded = is_sharded(arguments)
    check_snapshot(snapshot, sharded=sharded)
    policy, log_probs = _policy_and_reference(
        inputs, model, reference, config, load, cache, arguments, sharded=sharded
    )
    make_record = get_kind(config.family).record
    assert make_record is not None, config.family

    sums = StepSums.read(snapshot, is_main=arguments.process_index == 0)
    progress = TokenProgress(round(inputs.data.epoch_tokens * config.epochs), sums)
    trainer = PRMTrainer(
        policy,
        arguments,
        record=make_record(inputs.encoding, config.beta),
        objective=config.objective,
        objective_settings=_objective_settings(config),
        data=inputs.data,
        reference=log_probs,
        heldout=inputs.heldout,
        sums=sums,
        batch_size=config.batch_size,
        tokens_per_forward=token_budget(config, arguments.device),
        packed=packs(policy, inputs.data, config),
        group_prompts=config.group_prompts,
        keep_best=config.keep_best,
        patience=config.patience,
        callbacks=_callbacks(work, progress, config, has_heldout),
    )
    for unwanted in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(unwanted)
    with contextlib.closing(progress), quiet():
        trainer.train(resume_from_checkpoint=None if snapshot is None else str(snapshot))
        return _finished(trainer, inputs, log_probs)


def _read(
    rollouts: Iterable[Rollout],
    heldout: Iterable[Rollout],
    model: str | Path,
    config: TrainConfig,
    load: LoadOptions,
    seed: int,
) -> _Inputs:
    path = resolve(model, revision=load.revision, also=load.unsafe_patterns)
    tokenizer = load_tokenizer(path, trust_remote_code=load.trust_remote_code)
    rollouts = list(rollouts)
    rule = choose_step_rule(config, rollouts)
    encoding = get_kind(config.family).encoding(tokenizer, rule, context_length(model, config, load))
    data = make_training_set(rollouts, encoding, get_objective(config.objective), config, seed=seed)
    counts: dict[str, int] = {}
    examples = encode_examples(heldout, encoding, objective=get_objective("ce"), counts=counts)
    if counts and not examples:
        raise DataError(
            f"none of the {counts['rollouts']} held-out rollouts can be used",
            where="--dev",
            hint="grade them first with: stepcredit grade",
        )
    trained_on = {example.prompt_id for example in data.examples}
    shared = len({example.prompt_id for example in examples} & trained_on)
    if shared:
        warn(f"{shared} held-out prompts are trained on too: held-out metrics and the weights kept flatter")
    data.counts.update({f"heldout_{name}": number for name, number in counts.items()})
    return _Inputs(tokenizer=tokenizer, encoding=encoding, step_rule=str(rule), data=data, heldout=examples)


def _policy_and_reference(
    inputs: _Inputs,
    model: str | Path,
    reference: str | Path | None,
    config: TrainConfig,
    load: LoadOptions,
    cache: str | Path | None,
    arguments: TrainingArguments,
    *,
    sharded: bool,
) -> tuple[Any, ReferenceLogProbs | None]:
    """Load both; a reference of its own comes first, so that it is gone before the policy comes."""
    if sharded and config.lora_rank and config.live_reference and reference is None:
        raise UserError(
            "the base of a sharded adapter cannot be asked beside the policy",
            where="--live-reference",
            hint="leave it out; the reference is then computed once before training",
        )
    own_network = has_own_network(config, reference, sharded=sharded)
    policy = None if own_network else load_policy(model, config, load, arguments.device)
    log_probs = None
    if config.has_reference:
        log_probs = reference_log_probs(
            policy,
            inputs.sequences,
            model=model,
            reference=reference,
            config=config,
            load=load,
            cache=cache,
            arguments=arguments,
            sharded=sharded,
        )
    if policy is None:
        policy = load_policy(model, config, load, arguments.device)
    check_vocabulary(policy, inputs.tokenizer, model)
    return policy, log_probs


def _finished(trainer: PRMTrainer, inputs: _Inputs, reference: Any) -> TrainedModel:
    """Take the weights to keep, and what the run says of itself."""
    kept_step = int(trainer.state.global_step)
    if trainer.keep_best and trainer.state.best_model_checkpoint:
        trainer._load_best_model()
        kept_step = int(trainer.state.best_global_step or kept_step)
    log = log_rows(trainer.state)
    heldout = _heldout_at(log, kept_step)
    warning = no_better_than_chance(heldout)
    if warning is not None and trainer.is_world_process_zero():
        warn(f"{warning}: {WHAT_TO_TRY}")
    return TrainedModel(
        model=trainer.accelerator.unwrap_model(trainer.model),
        tokenizer=inputs.tokenizer,
        step_rule=inputs.step_rule,
        counts=inputs.data.counts,
        log=log,
        heldout=heldout,
        kept_step=kept_step,
        baseline=_baseline(log),
        ledger=_ledger(trainer, reference, trainer.heldout, log),
        state_dict=trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if trainer.is_fsdp_enabled
        else None,
    )


def _objective_settings(config: TrainConfig) -> ObjectiveSettings:
    names = ObjectiveSettings.__dataclass_fields__
    return ObjectiveSettings(**{name: getattr(config, name) for name in names})


def _callbacks(work: Path, progress: TokenProgress, config: TrainConfig, has_heldout: bool) -> list[Any]:
    events = work.with_name(work.name.removesuffix(".partial") + ".tensorboard")
    reporting = reporting_callbacks(config.report_to, events)
    return [LogFile(work / LOG_FILE), progress, *reporting, LastLine(evaluates=has_heldout)]


def _heldout_at(log: Sequence[dict[str, Any]], step: int) -> dict[str, float]:
    rows = [row for row in log if row["step"] == step and "heldout_auc" in row]
    names = [name for name in (rows[-1] if rows else {}) if name.startswith("heldout_")]
    return {name.removeprefix("heldout_"): rows[-1][name] for name in names}


def _baseline(log: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Put together from the log's lines, each of which stands for the steps since the one before."""
    rows = [row for row in log if "baseline" in row]
    if not rows:
        return {}
    steps = np.diff([0, *(row["step"] for row in rows)])
    total = sum(row["baseline"] * int(number) for row, number in zip(rows, steps, strict=True))
    return {
        "mean": total / int(steps.sum()),
        "zero_steps": sum(row["baseline_zero"] for row in rows),
        "steps": int(steps.sum()),
    }


def _ledger(
    trainer: PRMTrainer, reference: Any, heldout: Sequence[Example], log: Sequence[dict[str, Any]]
) -> Ledger:
    evaluations = sum(1 for row in log if "heldout_reward_right" in row)
    scored = evaluations * sum(len(example.encoded.token_ids) for example in heldout)
    if isinstance(reference, StoredReference):
        scored += reference.num_tokens
    if trainer.objective.needs_mismatched or trainer.objective.needs_batch_rewards:
        # Mismatched responses are a permutation of the responses, so they have as many tokens.
        scored += int(trainer.state.num_input_tokens_seen)
    return Ledger(
        model_parameters=sum(parameter.numel() for parameter in trainer.model_wrapped.parameters()),
        scored_tokens=scored,
        trained_tokens=int(trainer.state.num_input_tokens_seen),
    )
