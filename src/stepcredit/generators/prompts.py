"""Prompts and started responses as the token ids that a policy continues."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stepcredit.errors import CheckpointError, DataError
from stepcredit.types import PromptText

_CONTEXT_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Opening:
    """What a response continues.

    Attributes:
        token_ids: Tokens of the formatted prompt and the response prefix.
        prefix_ids: Tokens of the response prefix alone; ``None`` where they do not split off cleanly.
    """

    token_ids: tuple[int, ...]
    prefix_ids: tuple[int, ...] | None


class PromptFormat:
    """Formats conversations with a tokenizer's chat template and turns tokens back into text.

    Args:
        tokenizer: A transformers tokenizer with a chat template.

    Raises:
        CheckpointError: The tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise CheckpointError(
                "the tokenizer has no chat template, so prompts cannot be formatted",
                mend="use an instruction-tuned model, or save a chat_template.jinja beside the tokenizer",
            )
        self.tokenizer = tokenizer
        self._formatted = lru_cache(maxsize=1024)(self._format)

    def opening(self, prompt: PromptText, response_prefix: str = "") -> Opening:
        """The token ids to continue; prompt and prefix are tokenised as one text.

        Raises:
            DataError: The conversation does not end before the assistant's turn, or the template refuses it.
        """
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        conversation = tuple((message["role"], message["content"]) for message in messages)
        text, prompt_ids = self._formatted(conversation)
        if not response_prefix:
            return Opening(prompt_ids, ())
        ids = self._tokens(text + response_prefix)
        clean = ids[: len(prompt_ids)] == prompt_ids
        return Opening(ids, ids[len(prompt_ids) :] if clean else None)

    def _format(self, conversation: tuple[tuple[str, str], ...]) -> tuple[str, tuple[int, ...]]:
        if not conversation or conversation[-1][0] == "assistant":
            raise DataError("the prompt must end before the assistant's turn")
        messages = [{"role": role, "content": content} for role, content in conversation]
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # Jinja templates raise whatever they like.
            raise DataError(f"the chat template refuses the prompt ({error})") from error
        return text, self._tokens(text)

    def _tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text_after(self, opening: Opening, drawn: tuple[int, ...]) -> str:
        """The text that ``drawn`` adds to the opening, special tokens left out.

        It is decoded behind the opening's last tokens, because a tokenizer may decode a token differently
        at the start of a text (a leading space is dropped there).
        """
        context = list(opening.token_ids[-_CONTEXT_TOKENS:])
        before = self._text(context)
        whole = self._text([*context, *drawn])
        return whole[len(before) :] if whole.startswith(before) else self._text(list(drawn))

    def _text(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
