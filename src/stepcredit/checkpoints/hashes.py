"""Content hashes of what makes up a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from stepcredit.checkpoints.json_files import read_object
from stepcredit.checkpoints.sources import adapter_base, resolve
from stepcredit.errors import CheckpointError
from stepcredit.runs import hash_file, hash_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WEIGHT_PATTERNS = ("*.safetensors", "*.gguf")
_SETTINGS_FILES = (
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "tokenizer.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_CONFIGURATION_FILES = ("config.json", "adapter_config.json")
_REMARKS = (
    "transformers_version", "_name_or_path", "name_or_path", "base_model_name_or_path", "revision",
    "peft_version",
)  # fmt: skip
"""What these files say of their making and of places, on which no number depends."""


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


def settings_hash(directory: str | Path) -> str:
    """Hash of the files beside the weights that decide what a model does.

    Those are its configuration, generation settings and tokenizer files, and for an adapter its base's too.
    """
    return _settings_hash(Path(directory), _SETTINGS_FILES)


def configuration_hash(directory: str | Path) -> str:
    """Hash of the configuration that a model computes with, and of an adapter's base's; not of its weights.

    Raises:
        CheckpointError: An adapter's base is not there.
    """
    return _settings_hash(Path(directory), _CONFIGURATION_FILES)


def _settings_hash(directory: Path, names: Sequence[str]) -> str:
    if directory.is_file():  # of GGUF, which holds all of it
        return _file_hash(directory)
    files = [directory / name for name in names if (directory / name).is_file()]
    hashes = [[file.name, _settings_file_hash(file)] for file in files]
    if (directory / "adapter_config.json").is_file():
        base = resolve(adapter_base(directory), weights=False)
        hashes.append(["base", _settings_hash(base, names)])
    return hash_json(hashes)


def _settings_file_hash(path: Path) -> str:
    if path.suffix != ".json":
        return _file_hash(path)
    try:
        content = read_object(path)
        return hash_json({name: value for name, value in content.items() if name not in _REMARKS})
    except (ValueError, RecursionError):
        return _file_hash(path)


def content_hash(path: str | Path, *, also: Sequence[str] = ()) -> str:
    """Hash of the weights that a model computes with: its own and, for an adapter, its base's.

    Args:
        path: Directory, or one GGUF file.
        also: Further files to fetch of an adapter's base (:attr:`LoadOptions.unsafe_patterns`).

    Raises:
        CheckpointError: There are no weights.
    """
    path = Path(path)
    if not (path / "adapter_config.json").is_file():
        return weights_hash(path)
    base = weights_hash(resolve(adapter_base(path), also=also))
    return hash_json([weights_hash(path), base])


def model_hash(path: str | Path, *, also: Sequence[str] = ()) -> str:
    """Hash of everything that decides a model's numbers: its weights and configuration.

    Args:
        path: As for :func:`content_hash`.
        also: As there.

    Raises:
        CheckpointError: There are no weights.
    """
    return hash_json([content_hash(path, also=also), configuration_hash(path)])
