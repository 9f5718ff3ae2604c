"""What a tokenizer's chat template says: the text before a response and the token that ends a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stepcredit.errors import CheckpointError, DataError
from stepcredit.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "stepcredit0probe"


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


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool
) -> str:
    """The conversation as text, by the tokenizer's chat template.

    Raises:
        DataError: The template refuses the conversation, e.g. for its order of roles.
    """
    tokenizer_of_any_kind: Any = tokenizer
    try:
        text: str = tokenizer_of_any_kind.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise DataError(
            f"the chat template refuses the prompt ({lines[0][:200]})",
            hint="check the roles and their order",
        ) from error
    return text


def prompt_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """Everything before the first character of the response.

    A template without a generation prompt is given the assistant's header that it writes in a finished
    conversation, unless that is only a blank, which then belongs to the response's first token.
    """
    prompted = render(tokenizer, messages, add_generation_prompt=True)
    if prompted != render(tokenizer, messages, add_generation_prompt=False):
        return prompted
    answered = _with_probe(tokenizer, messages)
    header = answered[len(prompted) : answered.rfind(_PROBE)] if answered.startswith(prompted) else ""
    return prompted + header if header.strip() else prompted


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token with which the assistant ends its turn: the first control token after its text.

    Raises:
        CheckpointError: Neither the template nor the tokenizer has one, or the template is broken.
    """
    try:
        answered = _with_probe(tokenizer, [{"role": "user", "content": "?"}])
    except DataError as error:
        raise CheckpointError(
            f"even for a plain question, {error.problem}",
            where=tokenizer.name_or_path,
            hint="restore the chat template that was saved with the model",
        ) from error
    suffix = answered[answered.rfind(_PROBE) + len(_PROBE) :] if _PROBE in answered else ""
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


def _with_probe(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The conversation with a short answer, finished."""
    answer: Message = {"role": "assistant", "content": _PROBE}
    return render(tokenizer, [*messages, answer], add_generation_prompt=False)
