"""Checkpoints that are never half-written: made under another name, flushed to disk, renamed."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import save_fsdp_model
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException
from transformers.distributed.fsdp import get_fsdp_ckpt_kwargs

from stepcredit.checkpoints import quiet
from stepcredit.errors import UserError

if TYPE_CHECKING:
    from transformers import Trainer

BEST = "best"
"""Where the weights with the best held-out AUC lie, beside the checkpoints."""

_NAME = re.compile(r"checkpoint-(\d+)")
_STATE = "trainer_state.json"
_KEPT = 2
_WRITING = (OSError, SafetensorError, CheckpointException)
_TORCH_WRITING = ("write", "space", "inline_container")
"""What writing raises, and words in the errors of torch's own writer, which have no type of their own."""


def save_snapshot(trainer: Trainer, name: str, *, weights_only: bool = False) -> None:
    """Save a trainer's state as ``<output_dir>/<name>``; all processes must call it.

    Older checkpoints are removed only after the new one is complete on disk.

    Args:
        name: ``checkpoint-<step>`` or another name.
        weights_only: Leave out optimizer, schedule and random states.

    Raises:
        UserError: It cannot be written, e.g. for want of space; earlier checkpoints are kept.
    """
    any_trainer: Any = trainer
    final = Path(any_trainer.args.output_dir) / name
    temporary = final.with_name(f".{name}.tmp")
    main = any_trainer.is_world_process_zero()
    if main:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    any_trainer.accelerator.wait_for_everyone()
    try:
        _write(any_trainer, temporary, weights_only=weights_only)
        if main:
            _flush(temporary)
    except (*_WRITING, RuntimeError, SystemError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, _WRITING) or any(word in str(error).lower() for word in _TORCH_WRITING):
            raise UserError(
                f"the checkpoint cannot be written ({error}); the checkpoints before it are kept",
                where=final,
                hint="free some disk space and run the same command again to continue",
            ) from error
        raise
    any_trainer.accelerator.wait_for_everyone()
    if main:
        _replace(temporary, final)
        _remove_old(final.parent)
    any_trainer.accelerator.wait_for_everyone()


def _write(trainer: Any, directory: Path, *, weights_only: bool) -> None:
    with quiet():
        trainer.save_model(str(directory), _internal_call=True)
    if weights_only:
        if trainer.is_fsdp_enabled:
            # What transformers reads a sharded model's best weights from, and how.
            plugin = trainer.accelerator.state.fsdp_plugin
            save_fsdp_model(
                plugin, trainer.accelerator, trainer.model, str(directory), **get_fsdp_ckpt_kwargs()
            )
        return
    trainer._save_optimizer_and_scheduler(str(directory))
    trainer._save_scaler(str(directory))
    trainer._save_rng_state(str(directory))
    sums = trainer.sums.of_all_processes(trainer.args.world_size)
    if trainer.is_world_process_zero():
        sums.write(directory)
        trainer.state.save_to_json(str(directory / _STATE))


def _flush(directory: Path) -> None:
    for file in directory.rglob("*"):
        if file.is_file():
            with open(file, "rb+") as handle:
                os.fsync(handle.fileno())


def _replace(temporary: Path, final: Path) -> None:
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    os.replace(temporary, final)
    shutil.rmtree(old, ignore_errors=True)


def _numbered(directory: Path) -> list[tuple[int, Path]]:
    numbered = []
    for path in directory.glob("checkpoint-*"):
        match = _NAME.fullmatch(path.name)
        if match and (path / _STATE).is_file():
            numbered.append((int(match[1]), path))
    return sorted(numbered)


def _remove_old(directory: Path) -> None:
    for _, path in _numbered(directory)[:-_KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def last_snapshot(directory: str | Path) -> Path | None:
    """The newest complete checkpoint in ``directory``, if there is one."""
    numbered = _numbered(Path(directory))
    return numbered[-1][1] if numbered else None


def check_snapshot(snapshot: Path | None, *, sharded: bool) -> None:
    """Refuse to go on from a checkpoint that was written by processes of the other kind.

    Args:
        snapshot: Where training would go on.
        sharded: Whether the model is sharded now. The number of processes may be another.

    Raises:
        UserError: It was sharded then and is not now, or the other way round.
    """
    if snapshot is None or any(snapshot.glob("pytorch_model_fsdp*")) == sharded:
        return
    then, now = ("whole", "sharded (FSDP)") if sharded else ("sharded (FSDP)", "whole")
    raise UserError(
        f"was written by a run with {then} models, and now they are {now}",
        where=snapshot,
        hint="run the command as it was run before, or pass --overwrite to start over",
    )
