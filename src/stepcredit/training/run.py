"""Training from rollouts to a model: encode, reference pass, train, keep the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import TrainingArguments

from stepcredit.checkpoints import (
    LoadOptions,
    load_model,
    load_tokenizer,
    pick_device,
    resolve,
    tokenizer_hash,
    weights_hash,
)
from stepcredit.encoding import ChatEncoding, Encoding, MathShepherdEncoding
from stepcredit.errors import UserError
from stepcredit.logprobs import (
    CachedTokenLogProbs,
    LocalTokenLogProbs,
    enable_log_probs,
    enable_packing,
)
from stepcredit.objectives import ObjectiveSettings, get_objective
from stepcredit.runs import Ledger
from stepcredit.steps import StepRule, choose_rule
from stepcredit.training.callbacks import EvaluateAtEnd, LogFile, TokenProgress, log_rows
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import Example, TrainingSet, encode_examples, make_training_set
from stepcredit.training.families import make_family
from stepcredit.training.reference import AutocastLogProbs, LiveReference, StoredReference
from stepcredit.training.snapshots import last_snapshot
from stepcredit.training.trainer import PRMTrainer, ReferenceLogProbs
from stepcredit.types import Rollout, TokenLogProbs

LOG_FILE = "train_log.jsonl"
_PACKED_FROM = 128
"""Mean tokens of a sequence from which packing gains more than it costs."""


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
    """

    model: Any
    tokenizer: Any
    step_rule: str
    counts: dict[str, int]
    log: list[dict[str, Any]]
    heldout: dict[str, float]
    kept_step: int
    ledger: Ledger = field(default_factory=Ledger)


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
    data.counts.update({f"heldout_{name}": number for name, number in heldout_counts.items()})

    steps_per_epoch = math.ceil(len(data.units) / config.batch_size)
    arguments = _training_arguments(
        config, work, load, seed=seed, steps_per_epoch=steps_per_epoch, has_heldout=bool(heldout_examples)
    )
    policy = _load_policy(model, config, load, arguments.device)
    family = make_family(config, encoding)
    if family.needs_reference:
        sequences = [example.encoded for example in (*data.examples, *heldout_examples)]
        sequences += data.mismatched
        source = _reference_source(policy, model, reference, config, load, arguments.device)
        source = source if cache is None else CachedTokenLogProbs(source, cache)
        log_probs: ReferenceLogProbs | None = _reference(source, sequences, config, arguments)
    else:
        log_probs = None
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
        tokens_per_forward=_token_budget(config, arguments.device),
        packed=_packs(policy, data, config),
        keep_best=config.keep_best,
        patience=config.patience,
        callbacks=_callbacks(work, data, config, bool(heldout_examples)),
    )
    for unwanted in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(unwanted)
    snapshot = last_snapshot(work)
    trainer.train(resume_from_checkpoint=None if snapshot is None else str(snapshot))
    kept_step = int(trainer.state.global_step)
    if config.keep_best and trainer.state.best_model_checkpoint:
        trainer._load_best_model()
        kept_step = int(trainer.state.best_global_step or kept_step)
    log = log_rows(trainer.state)
    return TrainedModel(
        model=trainer.accelerator.unwrap_model(trainer.model),
        tokenizer=tokenizer,
        step_rule=str(rule),
        counts=data.counts,
        log=log,
        heldout=_heldout_at(log, kept_step),
        kept_step=kept_step,
        ledger=_ledger(trainer, log_probs, heldout_examples, log),
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
        report_to=[] if config.report_to == "none" else [config.report_to],
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
    callbacks: list[Any] = [LogFile(work / LOG_FILE), TokenProgress(round(tokens * config.epochs))]
    return [*callbacks, EvaluateAtEnd()] if has_heldout else callbacks


def choose_step_rule(config: TrainConfig, rollouts: Sequence[Rollout]) -> StepRule:
    """The rule of the configuration; ``auto`` becomes the one that fits the responses."""
    rule = StepRule.parse(config.step_rule)
    return choose_rule(rollout.response for rollout in rollouts) if rule.kind == "auto" else rule


def make_encoding(config: TrainConfig, tokenizer: Any, rule: StepRule, max_tokens: int | None) -> Encoding:
    """The format of the family: what its scorer reads."""
    if config.family == "math-shepherd":
        return MathShepherdEncoding(tokenizer, rule, max_tokens=max_tokens)
    return ChatEncoding(tokenizer, rule, max_tokens=max_tokens, tokenizer_hash=tokenizer_hash(tokenizer))


def context_length(model: str | Path, config: TrainConfig, load: LoadOptions) -> int | None:
    """Most tokens of a sequence: as configured, at most what the model takes.

    Raises:
        UserError: More is asked for.
    """
    settings: Any = transformers.AutoConfig.from_pretrained(
        str(resolve(model, revision=load.revision)), trust_remote_code=load.trust_remote_code
    )
    context = getattr(settings.get_text_config(), "max_position_embeddings", None)
    if config.max_tokens is not None and context is not None and config.max_tokens > context:
        raise UserError(
            f"{config.max_tokens} is more than the model's context of {context} tokens",
            where="--max-tokens",
            mend="lower it, or use a model with a longer context",
        )
    return config.max_tokens or context


def _load_policy(model: str | Path, config: TrainConfig, load: LoadOptions, device: torch.device) -> Any:
    dtype = config.precision if config.lora_rank else "float32"
    has_head = config.family == "value-head"
    policy: Any = load_model(
        model, load, dtype=dtype, device=str(device), model_class=_OneClassModel if has_head else None
    )
    if config.lora_rank:
        policy = _with_adapter(policy, config)
    if not has_head:
        enable_log_probs(policy)
    return policy


class _OneClassModel:
    """A token classifier with one output, without dropout before it."""

    @staticmethod
    def from_pretrained(path: str, **arguments: Any) -> Any:
        """As transformers' own."""
        network: Any = transformers.AutoModelForTokenClassification.from_pretrained(
            path, num_labels=1, **arguments
        )
        network.config.classifier_dropout = 0.0
        if isinstance(getattr(network, "dropout", None), nn.Dropout):
            network.dropout.p = 0.0
        return network


def _with_adapter(policy: nn.Module, config: TrainConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = config.lora_targets.split(",")
    adapter = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        lora_dropout=config.lora_dropout,
        target_modules=targets[0] if targets == ["all-linear"] else targets,
        task_type="TOKEN_CLS" if config.family == "value-head" else "CAUSAL_LM",
    )
    try:
        return get_peft_model(policy, adapter)
    except ValueError as error:
        raise UserError(
            f"no adapter can be put there ({error})",
            where="--lora-targets",
            mend="name modules of this model",
        ) from error


def _token_budget(config: TrainConfig, device: torch.device) -> int:
    return config.tokens_per_forward or default_tokens_per_forward(device.type)


def default_tokens_per_forward(device_type: str) -> int:
    """On a CPU a small pass stays in its caches; an accelerator wants a large one."""
    return 4096 if device_type == "cpu" else 16384


def _packs(policy: nn.Module, data: TrainingSet, config: TrainConfig) -> bool:
    """Packing calls attention once a sequence, which pays where sequences are long."""
    if config.family != "implicit" or config.layout == "padded":
        return False
    tokens = sum(len(example.encoded.token_ids) for example in data.examples)
    if config.layout == "auto" and tokens < _PACKED_FROM * len(data.examples):
        return False
    packs = enable_packing(policy)
    if config.layout == "packed" and not packs:
        raise UserError(
            "this model's attention cannot run packed sequences", where="--layout", mend="use padded"
        )
    return packs


def _reference_source(
    policy: nn.Module,
    model: str | Path,
    reference: str | Path | None,
    config: TrainConfig,
    load: LoadOptions,
    device: torch.device,
) -> TokenLogProbs:
    """The reference: the policy before training, its base without the adapter, or another model."""
    name = reference or model
    network: nn.Module = policy
    adapter_off = bool(config.lora_rank) and reference is None
    if reference is not None or (config.live_reference and not adapter_off):
        network = load_model(name, load, dtype="float32", device=str(device))
    source = LocalTokenLogProbs(
        network,
        weights_hash=weights_hash(resolve(name, revision=load.revision)),
        token_budget=_token_budget(config, device),
        adapter_off=adapter_off,
    )
    return AutocastLogProbs(source, device.type, torch.bfloat16 if config.precision == "bfloat16" else None)


def _reference(
    source: TokenLogProbs, sequences: Sequence[Any], config: TrainConfig, arguments: TrainingArguments
) -> ReferenceLogProbs:
    if config.live_reference:
        return LiveReference(source)
    return StoredReference(
        source, sequences, process=arguments.process_index, num_processes=arguments.world_size
    )


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
    return Ledger(
        model_parameters=sum(parameter.numel() for parameter in trainer.model_wrapped.parameters()),
        scored_tokens=scored,
        trained_tokens=int(trainer.state.num_input_tokens_seen),
    )
