"""Content hashes of what makes up a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from stepcredit.checkpoints.sources import adapter_base, resolve
from stepcredit.errors import CheckpointError
from stepcredit.runs import hash_file, hash_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WEIGHT_PATTERNS = ("*.safetensors", "*.gguf")


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of everything that decides how text becomes token ids, except the chat template.

    Two tokenizers with the same hash give the same ids for the same text. Truncation and padding
    settings, which calls change in passing, do not count.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules["truncation"] = rules["padding"] = None
    else:
        rules = {"vocabulary": tokenizer.get_vocab(), "class": type(tokenizer).__name__}
    special = {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())}
    return hash_json([rules, special])


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Hash of the chat template, ``None`` where there is none."""
    template = getattr(tokenizer, "chat_template", None)
    return None if template is None else hash_json(template)


def _file_hash(path: Path) -> str:
    status = path.stat()
    return _hash_unchanged_file(path.resolve(), status.st_size, status.st_mtime_ns)


@cache
def _hash_unchanged_file(path: Path, size: int, modified: int) -> str:
    """Large files are read once per process; a file of the same size and time is taken as unchanged."""
    del size, modified
    return hash_file(path)


def weights_hash(directory: str | Path) -> str:
    """Hash of the weight files in ``directory`` (or of one GGUF file): names and contents.

    Raises:
        CheckpointError: There is none.
    """
    directory = Path(directory)
    if directory.is_file():
        return _file_hash(directory)
    files = sorted(file for pattern in _WEIGHT_PATTERNS for file in directory.glob(pattern))
    files = files or sorted([*directory.glob("pytorch_model*.bin"), *directory.glob("adapter_model.bin")])
    if not files:
        raise CheckpointError(
            "holds no weights (*.safetensors or *.gguf)",
            where=directory,
            hint="name a directory that save_pretrained wrote, or pass --allow-pickle for *.bin of the hub",
        )
    return hash_json([[file.name, _file_hash(file)] for file in files])


def content_hash(path: str | Path, *, also: Sequence[str] = (), adapter_off: bool = False) -> str:
    """Hash of everything that a model computes with: its weights and, for an adapter, its base's.

    Args:
        path: Directory, or one GGUF file.
        also: Further files to fetch of an adapter's base (:attr:`LoadOptions.unsafe_patterns`).
        adapter_off: Hash an adapter's base alone.

    Raises:
        CheckpointError: There are no weights.
    """
    path = Path(path)
    if not (path / "adapter_config.json").is_file():
        return weights_hash(path)
    base = weights_hash(resolve(adapter_base(path), also=also))
    return base if adapter_off else hash_json([weights_hash(path), base])
