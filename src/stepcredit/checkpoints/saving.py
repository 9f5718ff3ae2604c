"""Saving a trained PRM as an ordinary checkpoint with its ``prm.json``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stepcredit.chat_templates import chat_settings, reads_clock
from stepcredit.checkpoints.card import PRMCard, known_configuration
from stepcredit.checkpoints.hashes import template_hash, tokenizer_hash, weights_hash
from stepcredit.checkpoints.loading import quiet

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def save_prm(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    card: PRMCard,
    directory: str | Path,
    *,
    state_dict: dict[str, Tensor] | None = None,
) -> PRMCard:
    """Write weights, tokenizer and ``prm.json`` into ``directory``.

    The hashes of the weights, tokenizer and template are filled in from what was written, and the tokenizer's
    chat settings are noted. Make
    ``directory`` with :func:`stepcredit.runs.atomic_directory`, so that it is never half there.

    Args:
        state_dict: The whole weights, where those of ``model`` are sharded over processes.

    Returns:
        The card as written.
    """
    directory = Path(directory)
    if state_dict is not None:
        # Gathered apart, tied weights no longer share memory, which is what transformers looks at.
        tied = getattr(model, "all_tied_weights_keys", None) or {}
        state_dict = {name: value for name, value in state_dict.items() if name not in tied}
    with quiet():
        model.save_pretrained(str(directory), state_dict=state_dict)
    tokenizer.save_pretrained(str(directory))
    chat = chat_settings(tokenizer)
    card = replace(
        card,
        weights_hash=weights_hash(directory),
        configuration_hash=known_configuration(directory),
        tokenizer_hash=tokenizer_hash(tokenizer),
        template_hash=template_hash(tokenizer),
        template_arguments=dict(chat.arguments),
        template_date=chat.date if reads_clock(tokenizer) else None,
        boundary=chat.boundary,
    )
    card.write(directory)
    return card
