"""Loading models and tokenizers from a directory, a GGUF file or the hub.

Pickle files are read and remote code runs only if asked for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.errors import CheckpointError, MissingExtraError, UserError
from stepcredit.options import option
from stepcredit.runs import warn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


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
        raise CheckpointError("is not a model directory", where=source, mend="check the path")
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
            mend="check the path or name, and that the hub can be reached",
        ) from error


def _gguf_file(path: Path) -> Path | None:
    if path.is_file():
        return path
    if any(path.glob("*.safetensors")):
        return None
    return next(iter(sorted(path.glob("*.gguf"))), None)


def load_tokenizer(source: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of a checkpoint; an adapter without one has its base's.

    Raises:
        CheckpointError: There is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    path = resolve(source)
    if (path / "adapter_config.json").is_file() and not any(
        (path / name).is_file() for name in _TOKENIZER_FILES
    ):
        path = resolve(adapter_base(path), weights=False)
    gguf = _gguf_file(path)
    arguments: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if gguf is not None and not (path / "tokenizer.json").is_file():
        check_gguf(gguf)
        path, arguments["gguf_file"] = gguf.parent, gguf.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), **arguments)
        return _without_foreign_tokens(tokenizer, path, gguf) if "gguf_file" in arguments else tokenizer
    except Exception as error:
        raise CheckpointError(
            f"has no tokenizer that can be loaded ({_first_line(error)})",
            where=source,
            mend="save one there with tokenizer.save_pretrained",
        ) from error


def _without_foreign_tokens(tokenizer: Any, path: Path, gguf: Path | None) -> Any:
    """Drop what transformers' tokenizer classes add to a GGUF file's vocabulary.

    GPT-2's class adds its own ``<|endoftext|>`` to every byte-level vocabulary; the model has no embedding
    for it.
    """
    from tokenizers import Tokenizer
    from transformers import AutoConfig, PreTrainedTokenizerFast

    assert gguf is not None
    size = AutoConfig.from_pretrained(str(path), gguf_file=gguf.name).get_text_config().vocab_size
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in rules["added_tokens"] if token["id"] < size]
    if len(kept) == len(rules["added_tokens"]):
        return tokenizer
    rules["added_tokens"] = kept
    special = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    found = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(rules)),
        chat_template=tokenizer.chat_template,
        **{name: token for name, token in special.items() if tokenizer.convert_tokens_to_ids(token) < size},
    )
    found.name_or_path = str(gguf)
    return found


def load_config(source: str | Path, options: LoadOptions | None = None) -> Any:
    """A model's configuration, without its weights; an adapter has its base's.

    Raises:
        CheckpointError: There is none, or it cannot be read.
    """
    from transformers import AutoConfig

    options = options or LoadOptions()
    path = resolve(source, revision=options.revision, also=options.unsafe_patterns, weights=False)
    if (path / "adapter_config.json").is_file():
        return load_config(adapter_base(path), replace(options, revision=None))
    arguments: dict[str, Any] = {"trust_remote_code": options.trust_remote_code}
    if not (path / "config.json").is_file():
        gguf = _gguf_file(resolve(source, revision=options.revision))
        if gguf is not None:
            check_gguf(gguf)
            path, arguments["gguf_file"] = gguf.parent, gguf.name
    try:
        return AutoConfig.from_pretrained(str(path), **arguments)
    except Exception as error:
        raise CheckpointError(
            f"has no model configuration that can be read ({_first_line(error)})",
            where=source,
            mend=_mend(str(error), path),
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
    options = replace(options or LoadOptions(), **overrides)
    if options.device_map is not None and options.device != "auto":
        raise UserError("cannot be given with --device-map", where="--device", mend="leave one of them out")
    path = resolve(source, revision=options.revision, also=options.unsafe_patterns)
    if (path / "adapter_config.json").is_file():
        return _load_adapter(path, options, model_class)
    return _load_weights(source, path, options, model_class)


def _load_weights(
    source: str | Path, path: Path, options: LoadOptions, model_class: Any, provided: Sequence[str] = ()
) -> PreTrainedModel:
    """As :func:`load_model`; modules that are ``provided`` later may lack their weights."""
    import transformers

    # A map that is not "cpu" may use whatever there is.
    device = pick_device("cpu" if options.device_map == "cpu" else options.device)
    arguments = _load_arguments(path, options, device)
    gguf = _gguf_file(path)
    if gguf is not None:
        from transformers import GgufConfig

        check_gguf(gguf)
        path = gguf.parent
        arguments |= {"gguf_file": gguf.name, "quantization_config": GgufConfig(dequantize=True)}
    loader: Any = model_class or transformers.AutoModelForCausalLM
    # A class of the caller's own may begin with a fresh head.
    must_be_whole = loader.__module__.startswith("transformers.")
    missing: Sequence[str] = ()
    model: Any
    try:
        with quiet():
            if must_be_whole:
                model, found = loader.from_pretrained(str(path), output_loading_info=True, **arguments)
                missing = sorted(found["missing_keys"])
            else:
                model = loader.from_pretrained(str(path), **arguments)
            if options.device_map is None:
                model = model.to(device)
    except Exception as error:
        raise CheckpointError(
            f"cannot be loaded as a model ({_first_line(error)})",
            where=source,
            mend=_mend(str(error), path, allow_pickle=options.allow_pickle),
        ) from error
    missing = [name for name in missing if not set(name.split(".")) & set(provided)]
    if missing:
        raise CheckpointError(
            f"lacks weights of a {type(model).__name__}: {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}",
            where=source,
            mend="name a checkpoint that was trained as such a model",
        )
    return model.eval()  # type: ignore[no-any-return]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the library's progress bars and reports of what it loads; what matters is an error here."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def pick_device(device: str) -> str:
    """``auto`` becomes the accelerator if there is one, else ``cpu``.

    Raises:
        UserError: There is no such device here.
    """
    import torch

    if device != "auto":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"{device!r} cannot be used here ({_first_line(error)})",
                where="--device",
                mend="use auto, which takes what there is",
            ) from error
        return device
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if accelerator is None else str(accelerator.type)


def _load_arguments(path: Path, options: LoadOptions, device: str) -> dict[str, Any]:
    import torch

    dtype: Any = options.dtype
    if dtype == "auto" and device == "cpu":
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


def adapter_base(path: Path) -> str:
    """The base model of an adapter's directory: a directory (also one beside it) or hub id.

    Raises:
        CheckpointError: It names none.
    """
    file = path / "adapter_config.json"
    try:
        base = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str) or not base:
        raise CheckpointError(
            "does not name its base model", where=file, mend="give base_model_name_or_path in it"
        )
    beside = path / base
    return str(beside if beside.is_dir() else base)


def _load_adapter(path: Path, options: LoadOptions, model_class: Any) -> PreTrainedModel:
    from peft import PeftModel

    if not options.allow_pickle and not (path / "adapter_model.safetensors").is_file():
        raise CheckpointError(
            "holds no adapter_model.safetensors",
            where=path,
            mend="pass --allow-pickle if you trust its *.bin",
        )
    base, options = adapter_base(path), replace(options, revision=None)
    config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    base_model = _load_weights(
        base,
        resolve(base, also=options.unsafe_patterns),
        options,
        model_class,
        provided=config.get("modules_to_save") or (),
    )
    try:
        adapted: Any = PeftModel.from_pretrained(base_model, str(path))
    except Exception as error:
        raise CheckpointError(
            f"cannot be loaded as an adapter of {base} ({_first_line(error)})",
            where=path,
            mend="name an adapter that peft wrote for this base",
        ) from error
    return adapted.eval()  # type: ignore[no-any-return]


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, where: str | Path) -> None:
    """Refuse a tokenizer with ids that the model has no embedding for.

    Raises:
        CheckpointError: The tokenizer belongs to another model.
    """
    embeddings: Any = model.get_input_embeddings()
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= embeddings.num_embeddings:
        raise CheckpointError(
            f"the tokenizer has ids up to {largest}, the model only {embeddings.num_embeddings} embeddings",
            where=where,
            mend="restore the tokenizer that was saved with the model",
        )


def check_gguf(path: Path) -> None:
    """Refuse GGUF files without the package that reads them.

    Raises:
        MissingExtraError: It is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("gguf", "gguf", needed_for=f"reading {path.name}")


def _mend(message: str, path: Path, *, allow_pickle: bool = True) -> str:
    if "custom code" in message:
        return "pass --trust-remote-code if you trust the code that comes with it"
    if not allow_pickle and any(path.glob("*.bin")):
        return "pass --allow-pickle if you trust its *.bin"
    return "name a directory with config.json and safetensors weights, as save_pretrained writes"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
