"""What an encoding needs of a tokenizer: offsets, a chat template, and the token that ends a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepcredit.chat_templates import text_after_answer
from stepcredit.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that cannot be used.

    Raises:
        CheckpointError: It gives no character offsets, or has no chat template.
    """
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if not tokenizer.is_fast:
        raise CheckpointError(
            "the tokenizer gives no character offsets (it is a slow one)",
            where=name,
            hint="save it as a fast tokenizer (tokenizer.json)",
        )
    if getattr(tokenizer, "chat_template", None) is None:
        raise CheckpointError(
            "the tokenizer has no chat template",
            where=name,
            hint="use an instruction-tuned model, or add a chat_template.jinja",
        )


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token with which the assistant ends its turn: the first control token after its text.

    Raises:
        CheckpointError: Neither the template nor the tokenizer has one, or the template is broken.
    """
    try:
        suffix = text_after_answer(tokenizer)
    except DataError as error:
        raise CheckpointError(
            f"even for a plain question, {error.problem}",
            where=tokenizer.name_or_path,
            hint="restore the chat template that was saved with the model",
        ) from error
    control = special_token_ids(tokenizer)
    for token_id in tokenizer(suffix, add_special_tokens=False)["input_ids"]:
        if token_id in control:
            return int(token_id)
    if tokenizer.eos_token_id is None:
        raise CheckpointError(
            "the tokenizer has no end-of-turn token",
            where=tokenizer.name_or_path,
            hint="set its eos_token",
        )
    return int(tokenizer.eos_token_id)


def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the control tokens, which no response's text may produce."""
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
