"""Training from rollouts to a model: encode, reference pass, train, keep the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor
from transformers import TrainingArguments

from stepcredit.checkpoints import LoadOptions, load_tokenizer, pick_device
from stepcredit.errors import DataError
from stepcredit.objectives import ObjectiveSettings, get_objective
from stepcredit.runs import Ledger
from stepcredit.training.callbacks import (
    EvaluateAtEnd,
    LogFile,
    TokenProgress,
    log_rows,
    reporting_callbacks,
)
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import Example, TrainingSet, encode_examples, make_training_set
from stepcredit.training.families import make_family
from stepcredit.training.models import load_policy, packs, reference_log_probs, token_budget
from stepcredit.training.preparation import choose_step_rule, context_length, make_encoding
from stepcredit.training.reference import StoredReference
from stepcredit.training.snapshots import last_snapshot
from stepcredit.training.trainer import PRMTrainer
from stepcredit.types import Rollout

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
    ledger: Ledger = field(default_factory=Ledger)
    state_dict: dict[str, Tensor] | None = None


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
        UserError: Data or models cannot be used as asked; or the loss is not finite.
    """
    load = load or LoadOptions()
    work = Path(work)
    transformers.set_seed(seed)
    tokenizer = load_tokenizer(model, trust_remote_code=load.trust_remote_code)
    rollouts = list(rollouts)
    rule = choose_step_rule(config, rollouts)
    encoding = make_encoding(config, tokenizer, rule, context_length(model, config, load))
    objective = get_objective(config.objective)
    data = make_training_set(rollouts, encoding, objective, config, seed=seed)
    heldout_counts: dict[str, int] = {}
    heldout_examples = encode_examples(
        heldout, encoding, objective=get_objective("ce"), counts=heldout_counts
    )
    if heldout_counts and not heldout_examples:
        raise DataError(
            f"none of the {heldout_counts['rollouts']} held-out rollouts can be used",
            where="--dev",
            mend="grade them first with: stepcredit grade",
        )
    data.counts.update({f"heldout_{name}": number for name, number in heldout_counts.items()})

    steps_per_epoch = math.ceil(len(data.units) / config.batch_size)
    arguments = _training_arguments(
        config, work, load, seed=seed, steps_per_epoch=steps_per_epoch, has_heldout=bool(heldout_examples)
    )
    policy = load_policy(model, config, load, arguments.device)
    family = make_family(config, encoding)
    log_probs = None
    if family.needs_reference:
        sequences = [example.encoded for example in (*data.examples, *heldout_examples)]
        log_probs = reference_log_probs(
            policy,
            [*sequences, *data.mismatched],
            model=model,
            reference=reference,
            config=config,
            load=load,
            cache=cache,
            arguments=arguments,
        )
    trainer = PRMTrainer(
        policy,
        arguments,
        family=family,
        objective=config.objective,
        objective_settings=_objective_settings(config),
        data=data,
        reference=log_probs,
        heldout=heldout_examples,
        batch_size=config.batch_size,
        tokens_per_forward=token_budget(config, arguments.device),
        packed=packs(policy, data, config),
        group_prompts=config.group_prompts,
        keep_best=config.keep_best,
        patience=config.patience,
        callbacks=_callbacks(work, data, config, bool(heldout_examples)),
    )
    for unwanted in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(unwanted)
    snapshot = last_snapshot(work)
    trainer.train(resume_from_checkpoint=None if snapshot is None else str(snapshot))
    return _finished(trainer, tokenizer, str(rule), log_probs)


def _finished(trainer: PRMTrainer, tokenizer: Any, step_rule: str, reference: Any) -> TrainedModel:
    """Take the weights to keep, and what the run says of itself."""
    kept_step = int(trainer.state.global_step)
    if trainer.keep_best and trainer.state.best_model_checkpoint:
        trainer._load_best_model()
        kept_step = int(trainer.state.best_global_step or kept_step)
    is_sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    log = log_rows(trainer.state)
    return TrainedModel(
        model=trainer.accelerator.unwrap_model(trainer.model),
        tokenizer=tokenizer,
        step_rule=step_rule,
        counts=trainer.data.counts,
        log=log,
        heldout=_heldout_at(log, kept_step),
        kept_step=kept_step,
        ledger=_ledger(trainer, reference, trainer.heldout, log),
        state_dict=trainer.accelerator.get_state_dict(trainer.model_wrapped) if is_sharded else None,
    )


def _training_arguments(
    config: TrainConfig, work: Path, load: LoadOptions, *, seed: int, steps_per_epoch: int, has_heldout: bool
) -> TrainingArguments:
    max_steps = max(1, math.ceil(config.epochs * steps_per_epoch))
    schedules: dict[str, tuple[str, dict[str, float]]] = {
        "cosine": ("cosine_with_min_lr", {"min_lr_rate": config.final_learning_rate}),
        "linear": ("linear", {}),
        "constant": ("constant_with_warmup", {}),
    }
    schedule, schedule_settings = schedules[config.schedule]
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=1,
        max_steps=max_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=schedule,
        lr_scheduler_kwargs=schedule_settings,
        warmup_steps=math.ceil(config.warmup * max_steps),
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        bf16=config.precision == "bfloat16",
        use_cpu=pick_device(load.device) == "cpu",
        activation_checkpointing=config.gradient_checkpointing,
        eval_strategy="steps" if has_heldout else "no",
        eval_steps=config.eval_every or max(1, math.ceil(steps_per_epoch / 4)),
        save_strategy="steps",
        save_steps=config.save_every or max(1, math.ceil(max_steps / 10)),
        logging_steps=config.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=[] if config.report_to in ("none", "tensorboard") else [config.report_to],
        run_name=work.name.removesuffix(".partial"),
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        seed=seed,
    )


def _objective_settings(config: TrainConfig) -> ObjectiveSettings:
    names = ObjectiveSettings.__dataclass_fields__
    return ObjectiveSettings(**{name: getattr(config, name) for name in names})


def _callbacks(work: Path, data: TrainingSet, config: TrainConfig, has_heldout: bool) -> list[Any]:
    tokens = sum(len(data.examples[row].encoded.token_ids) for unit in data.units for row in unit)
    events = work.with_name(work.name.removesuffix(".partial") + ".tensorboard")
    callbacks: list[Any] = [LogFile(work / LOG_FILE), TokenProgress(round(tokens * config.epochs))]
    callbacks += reporting_callbacks(config.report_to, events)
    return [*callbacks, EvaluateAtEnd()] if has_heldout else callbacks


def _heldout_at(log: Sequence[dict[str, Any]], step: int) -> dict[str, float]:
    rows = [row for row in log if row["step"] == step and "heldout_auc" in row]
    names = [name for name in (rows[-1] if rows else {}) if name.startswith("heldout_")]
    return {name.removeprefix("heldout_"): rows[-1][name] for name in names}


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
