"""Where a model is: a directory, a GGUF file or a hub name; and how it may be loaded.

Pickle files are read and remote code runs only if asked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stepcredit.chat_templates import ChatOptions
from stepcredit.checkpoints.json_files import read_object
from stepcredit.errors import CheckpointError, MissingExtraError
from stepcredit.options import option

_HARMLESS_STARTS = frozenset({"gaussian", "eva", "orthogonal", "mica"})
"""Initialisations of LoRA, of those that have a name, that leave the base's weights alone."""


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How models are loaded."""

    dtype: str = option(
        "number format of the weights; auto is float32 on a CPU and the checkpoint's own elsewhere",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    device: str = option(
        "cpu, cuda, cuda:N or mps; auto takes an accelerator if there is one", default="auto"
    )
    device_map: str | None = option("spread the model over several devices, e.g. auto", default=None)
    attention: str | None = option("attention implementation, e.g. sdpa or flash_attention_2", default=None)
    trust_remote_code: bool = option("run Python code that comes with the model", default=False)
    allow_pickle: bool = option(
        "read pickle files (*.bin) if there are no safetensors; such files can run any code", default=False
    )
    revision: str | None = option("branch, tag or commit of a hub model", default=None)
    chat: ChatOptions = field(default_factory=ChatOptions)

    @property
    def unsafe_patterns(self) -> tuple[str, ...]:
        """Files that are fetched from the hub only because they were asked for."""
        return ("*.py",) * self.trust_remote_code + ("*.bin",) * self.allow_pickle


def resolve(
    source: str | Path, *, revision: str | None = None, also: Sequence[str] = (), weights: bool = True
) -> Path:
    """The local directory (or GGUF file) of a model, fetched from the hub if ``source`` is a hub id.

    Args:
        source: Directory, GGUF file, or hub id.
        revision: Branch, tag or commit.
        also: Further files to fetch (:attr:`LoadOptions.unsafe_patterns`).
        weights: Whether weights are needed, not only tokenizer and configuration.

    Raises:
        CheckpointError: It is neither, or the hub cannot be reached.
    """
    path = Path(source)
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    looks_local = str(source).startswith((".", "/", "~")) or str(source).count("/") != 1 or path.is_file()
    if looks_local:
        raise CheckpointError("is not a model directory", where=source, hint="check the path")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.jinja", "*.model", "*.txt", *also]
    if weights:
        patterns += ["*.safetensors", "*.gguf"]
    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=patterns))
    except Exception as error:
        reason = type(error).__name__
        raise CheckpointError(
            f"is not a directory here and could not be fetched from the hub ({reason})",
            where=source,
            hint="check the path or name, and that the hub can be reached",
        ) from error


def adapter_base(path: Path) -> str:
    """The base model of an adapter's directory: a directory (also one beside it) or hub id.

    Raises:
        CheckpointError: It names none.
    """
    file = path / "adapter_config.json"
    base = read_object(file).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CheckpointError(
            "does not name its base model", where=file, hint="set base_model_name_or_path in it"
        )
    beside = path / base
    return str(beside if beside.is_dir() else base)


def adapter_off_is_base(path: Path) -> bool:
    """Whether an adapter that is switched off leaves its base as it was.

    Biases that were trained with it, layers that it repeats and what some initialisations (PiSSA, OLoRA) take
    out of the base's weights are not undone.
    """
    config = read_object(path / "adapter_config.json")
    start = config.get("init_lora_weights")
    return (
        config.get("bias") in (None, "none")
        and not config.get("layer_replication")
        and (not isinstance(start, str) or start in _HARMLESS_STARTS)
    )


def gguf_file(path: Path) -> Path | None:
    """The GGUF file of a model; ``None`` if its weights are not in that format."""
    if path.is_file():
        return path
    if any(path.glob("*.safetensors")):
        return None
    return next(iter(sorted(path.glob("*.gguf"))), None)


def check_gguf(path: Path) -> None:
    """Refuse GGUF files without the package that reads them.

    Raises:
        MissingExtraError: It is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("gguf", "gguf", needed_for=f"reading {path.name}")


def hint_for(message: str, path: Path, *, allow_pickle: bool = True) -> str:
    """What a user can do about a model that cannot be loaded.

    Args:
        allow_pickle: Whether pickle files may be read already.
    """
    if "custom code" in message:
        return "pass --trust-remote-code if you trust the code that comes with it"
    if not allow_pickle and any(path.glob("*.bin")):
        return "pass --allow-pickle if you trust its *.bin"
    return "name a directory with config.json and safetensors weights, as save_pretrained writes"


def first_line(error: Exception) -> str:
    """The first line of what a library said, or the name of its error."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
