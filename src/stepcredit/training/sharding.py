"""One model over several processes (FSDP2): what must be so that its numbers are those of one process."""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import TrainingArguments

from stepcredit.errors import UserError
from stepcredit.runs import warn

_UNSHARDED = (DistributedType.NO, DistributedType.MULTI_CPU)


def prepare_launch(precision: str) -> None:
    """Check what ``accelerate launch`` was asked for, before anything expensive.

    Args:
        precision: Of the run: ``float32`` or ``bfloat16``.

    Raises:
        UserError: It was asked for a way of sharding, or a precision, that is not the run's.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", "bf16" if precision == "bfloat16" else "no"):
        raise UserError(
            f"{asked} was asked for, but the run's precision is {precision}; the policy would be "
            "rounded differently from the reference",
            where="accelerate launch --mixed_precision",
            hint="leave it out, and pass --precision to stepcredit",
        )
    for name, variable in (("DeepSpeed", "DEEPSPEED"), ("Megatron-LM", "MEGATRON_LM")):
        if _is_on(f"ACCELERATE_USE_{variable}"):
            raise UserError(
                f"{name} splits the vocabulary projection, so training cannot use it",
                where="accelerate launch",
                hint="shard with --use_fsdp --fsdp_version 2",
            )
    if not _is_on("ACCELERATE_USE_FSDP"):
        return
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError(
            "FSDP of version 1 flattens the weights that the vocabulary projection needs",
            where="accelerate launch",
            hint="add --fsdp_version 2",
        )
    if _is_on("FSDP_ACTIVATION_CHECKPOINTING"):
        raise UserError(
            "activations are recomputed by the trainer, not by FSDP",
            where="accelerate launch --fsdp_activation_checkpointing",
            hint="leave it out, and pass --gradient-checkpointing to stepcredit",
        )
    # Else all processes but the first leave what a checkpoint lacks (a new head) on no device until they
    # are sharded, and place buffers on the CPU; the model runs before that, for the reference.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def is_sharded(arguments: TrainingArguments) -> bool:
    """Whether accelerate will shard the model; warns where it was asked to and will not."""
    if not _is_on("ACCELERATE_USE_FSDP"):
        return False
    state: Any = arguments.distributed_state
    if state.distributed_type not in _UNSHARDED:
        return True
    if arguments.process_index == 0:
        processes = (
            "the process" if arguments.world_size == 1 else f"each of {arguments.world_size} processes"
        )
        warn(
            f"FSDP was requested, but accelerate shards only over several accelerators: {processes} holds "
            "the whole model"
        )
    return False


def set_precision(accelerator: Any, *, bfloat16: bool) -> None:
    """Let sharded weights be gathered in bfloat16, and nothing else.

    accelerate's own policy also rounds what the model returns, log-probabilities among them, and sums
    gradients in bfloat16.
    """
    accelerator.state.fsdp_plugin.mixed_precision_policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if bfloat16
        else MixedPrecisionPolicy()
    )


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")
