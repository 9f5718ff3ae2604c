"""A trained model to a folder: weights, ``prm.json``, training log, model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from stepcredit.checkpoints import PRMCard, save_prm
from stepcredit.errors import UserError
from stepcredit.training.config import TrainConfig
from stepcredit.training.fitting import TrainedModel
from stepcredit.training.log import LOG_FILE, write_log
from stepcredit.training.model_card import model_card
from stepcredit.training.sources import Sources


def save_trained(
    trained: TrainedModel,
    directory: Path,
    *,
    out: Path,
    name: str,
    sources: Sources,
    config: TrainConfig,
    seed: int,
    data_hash: str,
    manifest: Mapping[str, Any],
) -> None:
    """Write all of it.

    Args:
        out: Where the folder will lie, from which its reference is found.

    Raises:
        UserError: It cannot be written, e.g. for want of space.
    """
    balanced = "" if config.balance == "none" else f" ({config.balance}-balanced)"
    card = PRMCard(
        family=config.family,
        reference=sources.reference(out, config),
        beta=config.beta if config.learns == "ratios" else None,
        objective=config.objective + balanced,
        step_rule=trained.step_rule,
        step_separator=trained.step_separator,
        training_data_hash=data_hash,
        versions=manifest["versions"],
        settings={**asdict(config), "seed": seed},
        results=trained.heldout,
    )
    try:
        saved = save_prm(trained.model, trained.tokenizer, card, directory, state_dict=trained.state_dict)
    except SafetensorError as error:
        raise UserError(
            f"the model cannot be written ({error}); its checkpoints are kept",
            where=out,
            hint="free some disk space and run the same command again",
        ) from error
    write_log(directory / LOG_FILE, trained.log)
    text = model_card(saved, name=name, base=sources.model.name, manifest=manifest)
    (directory / "README.md").write_text(text, encoding="utf-8")
