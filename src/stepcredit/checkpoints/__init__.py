"""Models on disk: loading them safely, naming them by content, and what a saved PRM says of itself."""

from stepcredit.checkpoints.card import PRMCard, Reference
from stepcredit.checkpoints.hashes import template_hash, tokenizer_hash, weights_hash
from stepcredit.checkpoints.loading import (
    LoadOptions,
    adapter_base,
    check_vocabulary,
    load_config,
    load_model,
    load_tokenizer,
    pick_device,
    quiet,
    resolve,
)
from stepcredit.checkpoints.saving import save_prm

__all__ = [
    "LoadOptions",
    "PRMCard",
    "Reference",
    "adapter_base",
    "check_vocabulary",
    "load_config",
    "load_model",
    "load_tokenizer",
    "pick_device",
    "quiet",
    "resolve",
    "save_prm",
    "template_hash",
    "tokenizer_hash",
    "weights_hash",
]
