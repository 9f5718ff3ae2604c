"""A model's tokenizer and configuration, without its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.chat_templates import ChatOptions, reads_clock, set_chat_settings
from stepcredit.checkpoints.card import PRMCard
from stepcredit.checkpoints.configurations import check_configuration
from stepcredit.checkpoints.hashes import tokenizer_hash
from stepcredit.checkpoints.sources import (
    LoadOptions,
    adapter_base,
    check_gguf,
    first_line,
    gguf_file,
    hint_for,
    resolve,
)
from stepcredit.checkpoints.templates import check_template
from stepcredit.errors import CheckpointError
from stepcredit.runs import warn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_NO_LIMIT = 10**9
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def load_tokenizer(
    source: str | Path, *, trust_remote_code: bool = False, chat: ChatOptions | None = None
) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of a checkpoint; an adapter without one has its base's.

    Args:
        chat: How conversations become tokens; a reward model's own settings are in its ``prm.json``.

    Raises:
        CheckpointError: There is none, it cannot be read, or its chat template runs out of bounds.
        UserError: ``chat`` is not what the reward model was trained with.
    """
    from transformers import AutoTokenizer

    path = directory = resolve(source)
    if (path / "adapter_config.json").is_file() and not any(
        (path / name).is_file() for name in _TOKENIZER_FILES
    ):
        path = resolve(adapter_base(path), weights=False)
    gguf = gguf_file(path)
    arguments: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if gguf is not None and not (path / "tokenizer.json").is_file():
        check_gguf(gguf)
        path, arguments["gguf_file"] = gguf.parent, gguf.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), **arguments)
        if "gguf_file" in arguments:
            tokenizer = _without_foreign_tokens(tokenizer, path, gguf)
    except Exception as error:
        raise CheckpointError(
            f"has no tokenizer that can be loaded ({first_line(error)})",
            where=source,
            hint="save one there with tokenizer.save_pretrained",
        ) from error
    check_template(tokenizer, source)
    card = PRMCard.read(directory) if PRMCard.exists(directory) else None
    settings = (chat or ChatOptions()).settings(None if card is None else card.chat, where=source)
    set_chat_settings(tokenizer, settings)
    if chat is not None and card is not None and card.template_date is None and reads_clock(tokenizer):
        warn(
            f"{source}: its chat template reads the clock, and prm.json has no date: it was trained with the "
            f"date of the day, and is scored with {settings.date}; train it again to fix the date"
        )
    return tokenizer


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
    trimmed = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(rules)),
        chat_template=tokenizer.chat_template,
        **{name: token for name, token in special.items() if tokenizer.convert_tokens_to_ids(token) < size},
    )
    trimmed.name_or_path = str(gguf)
    return trimmed


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
        gguf = gguf_file(resolve(source, revision=options.revision))
        if gguf is not None:
            check_gguf(gguf)
            check_configuration(gguf)
            path, arguments["gguf_file"] = gguf.parent, gguf.name
    else:
        check_configuration(path)
    try:
        return AutoConfig.from_pretrained(str(path), **arguments)
    except Exception as error:
        raise CheckpointError(
            f"has no model configuration that can be read ({first_line(error)})",
            where=source,
            hint=hint_for(str(error), path),
        ) from error


def context_length(configuration: Any) -> int | None:
    """Most tokens that a model reads alike in every batch; ``None`` where there is no limit.

    That is what its configuration says it was made for. With LongRoPE it is the original length: beyond it
    transformers takes other rotary frequencies for the whole batch as soon as one text in it is that long, so
    that a short text's numbers would depend on its neighbours.
    """
    text = configuration.get_text_config()
    rotary = getattr(text, "rope_parameters", None) or {}
    limits = [getattr(text, "max_position_embeddings", None)]
    limits.extend(
        part.get("original_max_position_embeddings")
        for part in (rotary, *rotary.values())  # some models have them by kind of layer
        if isinstance(part, Mapping) and part.get("rope_type") == "longrope"
    )
    return min((limit for limit in limits if isinstance(limit, int) and 0 < limit < _NO_LIMIT), default=None)


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, where: str | Path) -> None:
    """Refuse a tokenizer with ids that the model has no embedding for.

    Raises:
        CheckpointError: The tokenizer belongs to another model.
    """
    embeddings: Any = model.get_input_embeddings()
    count = len(embeddings.weight)  # Adapters wrap the layer in ones without its other attributes.
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= count:
        raise CheckpointError(
            f"the tokenizer has ids up to {largest}, but the model has only {count} embeddings",
            where=where,
            hint="restore the tokenizer that was saved with the model",
        )


def check_reference_tokenizer(
    path: Path, tokenizer: PreTrainedTokenizerBase, where: str | Path, *, trust_remote_code: bool = False
) -> None:
    """Refuse a reference to which the policy's token ids mean something else.

    Args:
        path: The reference's directory.
        tokenizer: The policy's.
        where: The reference's name.

    Raises:
        CheckpointError: Their tokenizers differ.
    """
    theirs = load_tokenizer(path, trust_remote_code=trust_remote_code)
    if tokenizer_hash(theirs) != tokenizer_hash(tokenizer):
        raise CheckpointError(
            "its tokenizer differs from the PRM's",
            where=where,
            hint="use the model that the PRM was trained from",
        )
