"""How this process trains: settings as ``transformers.Trainer`` takes them, sharding, where to go on from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainingArguments

from stepcredit.checkpoints import LoadOptions, pick_device
from stepcredit.errors import UserError
from stepcredit.training.config import TrainConfig
from stepcredit.training.inputs import Inputs
from stepcredit.training.sharding import is_sharded
from stepcredit.training.snapshots import check_snapshot, last_snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """How this process trains.

    Attributes:
        sharded: Whether the model is sharded over the processes.
        snapshot: The checkpoint to go on from, if there is one.
    """

    arguments: TrainingArguments
    sharded: bool
    snapshot: Path | None

    @classmethod
    def begin(
        cls, inputs: Inputs, config: TrainConfig, work: Path, load: LoadOptions, *, seed: int
    ) -> Session:
        """Work it out.

        Raises:
            UserError: The checkpoint in ``work`` was written by processes of the other kind, or training
                cannot run on the device asked for.
        """
        arguments = training_arguments(
            config,
            work,
            load,
            seed=seed,
            steps_per_epoch=math.ceil(len(inputs.data.units) / config.batch_size),
            has_heldout=bool(inputs.heldout),
        )
        sharded, snapshot = is_sharded(arguments), last_snapshot(work)
        check_snapshot(snapshot, sharded=sharded)
        return cls(arguments=arguments, sharded=sharded, snapshot=snapshot)


def training_arguments(
    config: TrainConfig, work: Path, load: LoadOptions, *, seed: int, steps_per_epoch: int, has_heldout: bool
) -> TrainingArguments:
    """What a configuration means to ``transformers.Trainer``.

    Args:
        load: Its device decides whether training runs on a CPU.

    Raises:
        UserError: Training cannot run on that device.
    """
    max_steps = max(1, math.ceil(config.epochs * steps_per_epoch))
    schedules: dict[str, tuple[str, dict[str, float]]] = {
        "cosine": ("cosine_with_min_lr", {"min_lr_rate": config.final_learning_rate}),
        "linear": ("linear", {}),
        "constant": ("constant_with_warmup", {}),
    }
    schedule, schedule_settings = schedules[config.schedule]
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=1,  # one item is a whole step
        max_steps=max_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=schedule,
        lr_scheduler_kwargs=schedule_settings,
        # A rate rises from zero: of a single step nothing would be learnt.
        warmup_steps=min(math.ceil(config.warmup * max_steps), max_steps - 1),
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
        # It would log an earlier mean in place of a loss that is not finite.
        logging_nan_inf_filter=False,
        report_to=[] if config.report_to in ("none", "tensorboard") else [config.report_to],
        run_name=work.name.removesuffix(".partial"),
        remove_unused_columns=False,
        disable_tqdm=True,
        # Items are records of several batches, which transformers does not know how to pin.
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        seed=seed,
    )
    if load.device not in ("auto", arguments.device.type, str(arguments.device)):
        raise UserError(
            f"training would run on {arguments.device}, not on {load.device}",
            where="--device",
            hint="name the accelerator in CUDA_VISIBLE_DEVICES",
        )
    # With several accelerators a single process would cut each pass between copies of the model, which takes
    # packed rows and their prefixes apart.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
