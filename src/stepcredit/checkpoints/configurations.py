"""A checkpoint's configuration against the shapes in its weight files, before a model is built.

A configuration with a wrong number makes the library build a million layers, or weights that fill the
memory, before it notices that the files hold something else.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from stepcredit.checkpoints.json_files import read_object
from stepcredit.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name to shape."""

_COUNTS = re.compile(r"(num|n|encoder|decoder)_(\w+_)?(layers?|experts|blocks)|n_?layers?|num_labels|depth|r")
"""Names of numbers of which the library makes as many modules or entries before it reads any weight."""

_MOST_IN_HEADER = 100_000_000


def check_configuration(path: Path) -> None:
    """Refuse numbers of modules far above what the weights hold, in a folder's or GGUF file's configuration.

    Modules may share weights, so the bound is a generous one; :func:`check_shapes` compares exactly.

    Raises:
        CheckpointError: A number is out of proportion, or a file is damaged; the message names both.
    """
    if path.is_file():
        _check_gguf_blocks(path)
        return
    for name in ("config.json", "adapter_config.json"):
        file = path / name
        if file.is_file():
            _check_counts(file, weight_shapes(path))


def check_shapes(path: Path, *, trust_remote_code: bool = False) -> None:
    """Refuse a folder whose configuration makes tensors of other shapes than its safetensors files hold.

    The model is built without memory for its weights. Names that only one side has are not compared.

    Raises:
        CheckpointError: Naming the first tensor that differs.
    """
    if (path / "config.json").is_file():
        shapes = weight_shapes(path)
        content = (path / "config.json").read_bytes()
        differing = _first_difference(str(path), content, tuple(shapes.items()), trust_remote_code)
        if differing is not None:
            name, expected = differing
            raise CheckpointError(
                f"makes {name} of shape {_shown(expected)}, but the weights have {_shown(shapes[name])}",
                where=path / "config.json",
                hint="restore the configuration that was saved with the weights",
            )


def weight_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors in the safetensors files of a folder, from their headers.

    Raises:
        CheckpointError: A file is damaged.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(path.glob("*.safetensors")):
        try:
            header = _header(file)
            shapes |= {name: tuple(map(int, tensor["shape"])) for name, tensor in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise CheckpointError(
                f"cannot be loaded as a model ({file.name} is damaged: {error})",
                where=path,
                hint="copy it again",
            ) from error
    return shapes


def _header(file: Path) -> dict[str, Any]:
    with open(file, "rb") as handle:
        start = handle.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(_MOST_IN_HEADER, file.stat().st_size):
            raise ValueError("its header has no valid length")
        header: dict[str, Any] = json.loads(handle.read(length))
    header.pop("__metadata__", None)
    return header


def _check_counts(file: Path, shapes: Shapes) -> None:
    for field, value in _counts(read_object(file)):
        held = _held(field, shapes)
        # Layers may share their weights, and heads may be made anew.
        if value > 16 * held + 256:
            raise CheckpointError(
                f"{field} is {value:.4g}, but the weights hold {held or 'none that say so'}",
                where=file,
                hint="restore the configuration that was saved with the weights",
            )


def _counts(content: Any, depth: int = 0) -> Iterator[tuple[str, int]]:
    """Numbers of modules in a configuration, also in those of its parts."""
    for field, value in content.items() if isinstance(content, dict) and depth < 4 else ():
        if isinstance(value, dict):
            yield from _counts(value, depth + 1)
        elif type(value) is int and _COUNTS.fullmatch(field):
            yield field, value


def _held(field: str, shapes: Shapes) -> int:
    """How many modules of a kind the weights hold, by their names and shapes."""
    if field == "r":
        return max((shape[0] for name, shape in shapes.items() if shape and "lora_A" in name), default=0)
    if field == "num_labels":
        return max((max(shape, default=0) for shape in shapes.values()), default=0)
    if not field.endswith("experts"):
        indices = [int(part) for name in shapes for part in name.split(".") if part.isdecimal()]
        return max((index + 1 for index in indices), default=0)
    listed = [int(match[1]) + 1 for name in shapes if (match := re.search(r"experts\.(\d+)\.", name))]
    fused = [shape[0] for name, shape in shapes.items() if "expert" in name and shape]
    return max(listed or fused, default=0)


def _check_gguf_blocks(file: Path) -> None:
    """Every block has a tensor, and a tensor takes at least 32 bytes of the file's header."""
    with open(file, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        most = min(struct.unpack("<Q", content[8:16])[0], len(content) // 32) if len(content) > 24 else 0
        key = b".block_count" + struct.pack("<I", 4)
        place = content.find(key)
        if place >= 0:
            start = place + len(key)
            (blocks,) = struct.unpack("<I", content[start : start + 4].ljust(4, b"\0"))
            if blocks > most:
                raise CheckpointError(
                    f"block_count is {blocks}, but it holds at most {most} tensors",
                    where=file,
                    hint="copy the file again",
                )


@lru_cache(maxsize=64)
def _first_difference(
    path: str, content: bytes, shapes: tuple[tuple[str, tuple[int, ...]], ...], trust_remote_code: bool
) -> tuple[str, tuple[int, ...]] | None:
    """The first tensor, by its name in the files, whose shape the configuration makes another.

    ``None`` also where the model cannot be built; loading says why.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    del content  # Part of the key: a folder may have changed.
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        if getattr(config, "quantization_config", None) is not None:
            return None  # Packed weights have shapes of their own.
        with torch.device("meta"):
            model: Any = AutoModel.from_config(config, trust_remote_code=trust_remote_code)
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    except Exception:
        return None
    for name, shape in shapes:
        made = expected.get(name.removeprefix(f"{model.base_model_prefix}."))
        if made is not None and made != shape:
            return name, made
    return None


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"
