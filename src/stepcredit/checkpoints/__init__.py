"""Models on disk: loading them safely, naming them by content, and what a saved PRM says of itself."""

from stepcredit.checkpoints.card import PRMCard, Reference, known_configuration, warn_if_edited
from stepcredit.checkpoints.hashes import (
    content_hash,
    model_hash,
    settings_hash,
    template_hash,
    tokenizer_hash,
    weights_hash,
)
from stepcredit.checkpoints.loading import load_model, pick_device, quiet
from stepcredit.checkpoints.saving import save_prm
from stepcredit.checkpoints.sources import LoadOptions, adapter_base, adapter_off_is_base, resolve
from stepcredit.checkpoints.tokenizers import (
    check_reference_tokenizer,
    check_vocabulary,
    context_length,
    load_config,
    load_tokenizer,
)

__all__ = [
    "LoadOptions",
    "PRMCard",
    "Reference",
    "adapter_base",
    "adapter_off_is_base",
    "check_reference_tokenizer",
    "check_vocabulary",
    "content_hash",
    "context_length",
    "known_configuration",
    "load_config",
    "load_model",
    "load_tokenizer",
    "model_hash",
    "pick_device",
    "quiet",
    "resolve",
    "save_prm",
    "settings_hash",
    "template_hash",
    "tokenizer_hash",
    "warn_if_edited",
    "weights_hash",
]
