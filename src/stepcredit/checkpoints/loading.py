"""Loading a model's weights from a directory, a GGUF file or the hub.

Pickle files are read and remote code runs only if asked for.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints.configurations import check_configuration, check_shapes
from stepcredit.checkpoints.json_files import read_object
from stepcredit.checkpoints.sources import (
    LoadOptions,
    adapter_base,
    check_gguf,
    first_line,
    gguf_file,
    hint_for,
    resolve,
)
from stepcredit.errors import CheckpointError, UserError
from stepcredit.runs import warn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HEAD_WEIGHTS = (".score.weight", ".classifier.weight")
"""Ends of the names that transformers' classifiers give the weights of their head."""


def load_model(
    source: str | Path, options: LoadOptions | None = None, *, model_class: Any = None, **overrides: Any
) -> PreTrainedModel:
    """Load a model in evaluation mode; a PEFT adapter directory gives its base with the adapter on.

    Args:
        source: Directory, GGUF file, or hub id.
        model_class: An ``AutoModel...`` class; the default is ``AutoModelForCausalLM``.
        **overrides: Fields of :class:`LoadOptions`.

    Raises:
        CheckpointError: It cannot be loaded as asked.
    """
    options = replace(options or LoadOptions(), **overrides)
    if options.device_map is not None and options.device != "auto":
        raise UserError("cannot be given with --device-map", where="--device", hint="leave one of them out")
    path = resolve(source, revision=options.revision, also=options.unsafe_patterns)
    if (path / "adapter_config.json").is_file():
        return _load_adapter(path, options, model_class)
    return _load_weights(source, path, options, model_class)


def _load_weights(
    source: str | Path,
    path: Path,
    options: LoadOptions,
    model_class: Any,
    provided: Sequence[str] = (),
    num_labels: int | None = None,
) -> PreTrainedModel:
    """As :func:`load_model`; modules that are ``provided`` later may lack their weights.

    ``num_labels`` is the number of a head's outputs, where the configuration does not have it.
    """
    import transformers

    # A map that is not "cpu" may use whatever there is.
    device = pick_device("cpu" if options.device_map == "cpu" else options.device)
    check_configuration(path)
    arguments = _load_arguments(path, options, device)
    if num_labels is not None:
        arguments["num_labels"] = num_labels
    gguf = gguf_file(path)
    if gguf is not None:
        from transformers import GgufConfig

        check_gguf(gguf)
        check_configuration(gguf)
        path = gguf.parent
        arguments |= {"gguf_file": gguf.name, "quantization_config": GgufConfig(dequantize=True)}
    else:
        check_shapes(path, trust_remote_code=options.trust_remote_code)
    loader: Any = model_class or transformers.AutoModelForCausalLM
    # A class of the caller's own may begin with a fresh head.
    must_be_whole = loader.__module__.startswith("transformers.")
    missing: Sequence[str] = ()
    model: Any
    try:
        with quiet():
            if must_be_whole:
                model, report = loader.from_pretrained(str(path), output_loading_info=True, **arguments)
                missing = sorted(report["missing_keys"])
            else:
                model = loader.from_pretrained(str(path), **arguments)
            if options.device_map is None:
                model = model.to(device)
    except Exception as error:
        raise CheckpointError(
            f"cannot be loaded as a model ({first_line(error)})",
            where=source,
            hint=hint_for(str(error), path, allow_pickle=options.allow_pickle),
        ) from error
    missing = [name for name in missing if not set(name.split(".")) & set(provided)]
    if missing:
        raise CheckpointError(
            f"lacks weights of a {type(model).__name__}: {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}",
            where=source,
            hint="name a checkpoint that was trained as such a model",
        )
    return model.eval()  # type: ignore[no-any-return]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the libraries' progress bars, deprecations and reports of what they load.

    What matters is an error here.
    """
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
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
                f"{device!r} cannot be used here ({first_line(error)})",
                where="--device",
                hint="use auto, which takes what is available",
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


def _load_adapter(path: Path, options: LoadOptions, model_class: Any) -> PreTrainedModel:
    from peft import PeftModel

    if not options.allow_pickle and not (path / "adapter_model.safetensors").is_file():
        raise CheckpointError(
            "holds no adapter_model.safetensors",
            where=path,
            hint="pass --allow-pickle if you trust its *.bin",
        )
    check_configuration(path)
    base, options = adapter_base(path), replace(options, revision=None)
    config = read_object(path / "adapter_config.json")
    base_model = _load_weights(
        base,
        resolve(base, also=options.unsafe_patterns),
        options,
        model_class,
        provided=config.get("modules_to_save") or (),
        num_labels=None if model_class is None else _outputs_of_head(path),
    )
    under_head = model_class is not None and config.get("task_type") == "CAUSAL_LM"
    adapted: Any
    try:
        with quiet():
            if under_head:
                adapted = _adapter_under_head(base_model, path)
            else:
                adapted = PeftModel.from_pretrained(base_model, str(path))
    except Exception as error:
        raise CheckpointError(
            f"cannot be loaded as an adapter of {base} ({first_line(error)})",
            where=path,
            hint="name an adapter that peft wrote for this base",
        ) from error
    # Tokens that stand before the text move all positions; prefix tuning adds keys and values only.
    kind, is_prompt = config.get("peft_type"), adapted.active_peft_config.is_prompt_learning
    if kind == "ADAPTION_PROMPT" or (is_prompt and kind != "PREFIX_TUNING"):
        raise CheckpointError(
            f"is an adapter of the kind {kind}, which puts learned tokens into the sequence",
            where=path,
            hint="use LoRA or prefix tuning",
        )
    return adapted.eval()  # type: ignore[no-any-return]


def _outputs_of_head(path: Path) -> int | None:
    """Outputs of the head that was saved with an adapter; its base's configuration does not know of it."""
    from peft.utils import load_peft_weights

    weights = load_peft_weights(str(path), device="cpu")
    sizes = [len(value) for name, value in weights.items() if name.endswith(_HEAD_WEIGHTS)]
    return sizes[0] if sizes else None


def _adapter_under_head(model: Any, path: Path) -> Any:
    """A language model's adapter on the same network with a head, which is saved with the adapter."""
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    from peft.utils import load_peft_weights

    adapter = PeftConfig.from_pretrained(str(path))
    # peft's classes are chosen by the task, and that of a language model asks for methods of generation.
    adapter.task_type = "TOKEN_CLS"
    adapted = get_peft_model(model, adapter)
    head = {
        name.replace(".modules_to_save.default", ""): value
        for name, value in adapted.state_dict().items()
        if ".modules_to_save.default." in name
    }
    set_peft_model_state_dict(adapted, head | load_peft_weights(str(path), device="cpu"))
    return adapted
