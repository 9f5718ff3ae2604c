"""Loading models and tokenizers from a directory, a GGUF file or the hub.

Pickle files are read and remote code runs only if asked for.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.errors import CheckpointError
from stepcredit.options import option
from stepcredit.runs import warn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How models are loaded."""

    dtype: str = option(
        "number format of the weights; auto is float32 on a CPU and the checkpoint's own elsewhere",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    device: str = option("cpu, cuda, cuda:N or mps; auto takes an accelerator if any", default="auto")
    device_map: str | None = option("spread one model over devices, e.g. auto", default=None)
    attention: str | None = option("attention implementation, e.g. sdpa or flash_attention_2", default=None)
    trust_remote_code: bool = option("run Python code that comes with the model", default=False)
    allow_pickle: bool = option("read pickle files (*.bin) where there is no safetensors", default=False)
    revision: str | None = option("branch, tag or commit of a hub model", default=None)

    @property
    def unsafe_patterns(self) -> tuple[str, ...]:
        """Files that are fetched from the hub only because they were asked for."""
        return ("*.py",) * self.trust_remote_code + ("*.bin",) * self.allow_pickle


def resolve(source: str | Path, *, revision: str | None = None, also: Sequence[str] = ()) -> Path:
    """The local directory (or GGUF file) of a model, fetched from the hub if ``source`` is a hub id.

    Args:
        source: Directory, GGUF file, or hub id.
        revision: Branch, tag or commit.
        also: Further files to fetch (:attr:`LoadOptions.unsafe_patterns`).

    Raises:
        CheckpointError: It is neither, or the hub cannot be reached.
    """
    path = Path(source)
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    looks_local = str(source).startswith((".", "/", "~")) or str(source).count("/") != 1 or path.is_file()
    if looks_local:
        raise CheckpointError("is not a model directory", where=source, mend="check the path")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.gguf", *also]
    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=patterns))
    except Exception as error:
        reason = type(error).__name__
        raise CheckpointError(
            f"is not a directory here and could not be fetched from the hub ({reason})",
            where=source,
            mend="check the path or name, and that the hub can be reached",
        ) from error


def _gguf_file(path: Path) -> Path | None:
    if path.is_file():
        return path
    if any(path.glob("*.safetensors")):
        return None
    return next(iter(sorted(path.glob("*.gguf"))), None)


def load_tokenizer(source: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of a checkpoint.

    Raises:
        CheckpointError: There is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    path = resolve(source)
    gguf = _gguf_file(path)
    arguments: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if gguf is not None and not (path / "tokenizer.json").is_file():
        path, arguments["gguf_file"] = gguf.parent, gguf.name
    try:
        return AutoTokenizer.from_pretrained(str(path), **arguments)
    except Exception as error:
        raise CheckpointError(
            f"has no tokenizer that can be loaded ({_first_line(error)})",
            where=source,
            mend="save one there with tokenizer.save_pretrained",
        ) from error


def load_model(
    source: str | Path,
    options: LoadOptions | None = None,
    *,
    model_class: Any = None,
    **overrides: Any,
) -> PreTrainedModel:
    """Load a model in evaluation mode; a PEFT adapter directory gives its base with the adapter on.

    Args:
        source: Directory, GGUF file, or hub id.
        options: How to load it.
        model_class: An ``AutoModel...`` class; the default is ``AutoModelForCausalLM``.
        **overrides: Fields of :class:`LoadOptions`.

    Raises:
        CheckpointError: It cannot be loaded as asked.
    """
    import transformers

    options = replace(options or LoadOptions(), **overrides)
    path = resolve(source, revision=options.revision, also=options.unsafe_patterns)
    if (path / "adapter_config.json").is_file():
        return _load_adapter(path, options, model_class)
    arguments = _load_arguments(path, options)
    gguf = _gguf_file(path)
    if gguf is not None:
        from transformers import GgufConfig

        path = gguf.parent
        arguments |= {"gguf_file": gguf.name, "quantization_config": GgufConfig(dequantize=True)}
    model: Any
    try:
        with quiet():
            model = (model_class or transformers.AutoModelForCausalLM).from_pretrained(str(path), **arguments)
    except Exception as error:
        raise CheckpointError(
            f"cannot be loaded as a model ({_first_line(error)})",
            where=source,
            mend=_mend(str(error)),
        ) from error
    if options.device_map is None:
        model = model.to(pick_device(options.device))
    return model.eval()  # type: ignore[no-any-return]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the library's own progress bars: a model that loads in a blink needs none."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def pick_device(device: str) -> str:
    """``auto`` becomes the accelerator if there is one, else ``cpu``."""
    import torch

    if device != "auto":
        return device
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if accelerator is None else str(accelerator.type)


def _load_arguments(path: Path, options: LoadOptions) -> dict[str, Any]:
    import torch

    on_cpu = options.device_map is None and pick_device(options.device) == "cpu"
    dtype: Any = options.dtype
    if dtype == "auto" and on_cpu:
        dtype = torch.float32
    elif dtype != "auto":
        dtype = getattr(torch, dtype)
    if options.trust_remote_code:
        warn(f"{path}: --trust-remote-code runs Python code that came with the model, with your rights")
    if options.allow_pickle:
        warn(
            f"{path}: --allow-pickle reads files that can run any code when they are loaded, with your rights"
        )
    arguments = {
        "dtype": dtype,
        "use_safetensors": None if options.allow_pickle else True,
        "trust_remote_code": options.trust_remote_code,
        "device_map": options.device_map,
        "attn_implementation": options.attention,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def _load_adapter(path: Path, options: LoadOptions, model_class: Any) -> PreTrainedModel:
    from peft import PeftModel

    base = json.loads((path / "adapter_config.json").read_text(encoding="utf-8")).get(
        "base_model_name_or_path"
    )
    if not base:
        raise CheckpointError("does not name its base model", where=path / "adapter_config.json")
    if not options.allow_pickle and not (path / "adapter_model.safetensors").is_file():
        raise CheckpointError(
            "holds no adapter_model.safetensors",
            where=path,
            mend="pass --allow-pickle if you trust its *.bin",
        )
    beside = path / base
    base_model = load_model(beside if beside.is_dir() else base, options, model_class=model_class)
    adapted: Any = PeftModel.from_pretrained(base_model, str(path))
    return adapted.eval()  # type: ignore[no-any-return]


def _mend(message: str) -> str:
    if "custom code" in message:
        return "pass --trust-remote-code if you trust the code that comes with it"
    return "name a directory with config.json and safetensors weights, as save_pretrained writes"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
