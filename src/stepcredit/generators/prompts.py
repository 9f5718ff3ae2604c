"""Prompts and started responses as the token ids that a policy continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stepcredit.errors import CheckpointError, DataError
from stepcredit.types import Message, PromptText

_CONTEXT_TOKENS = 8
_PROBE = "stepcredit0probe"


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
                hint="use an instruction-tuned model, or add a chat_template.jinja beside the tokenizer",
            )
        self.tokenizer = tokenizer
        self._formatted = lru_cache(maxsize=1024)(self._format)

    def opening(
        self, prompt: PromptText, response_prefix: str = "", prefix_ids: tuple[int, ...] | None = None
    ) -> Opening:
        """The token ids to continue; prompt and prefix are tokenised as one text unless the ids are known.

        Raises:
            DataError: The conversation does not end before the assistant's turn, or the template refuses it.
        """
        text, prompt_ids = self._formatted(_conversation(prompt))
        if not response_prefix:
            return Opening(prompt_ids, ())
        if prefix_ids is not None:
            return Opening(prompt_ids + prefix_ids, prefix_ids)
        if self._spells_control_token(response_prefix):
            prefix_ids = self._tokens(response_prefix, split_special_tokens=True)
            return Opening(prompt_ids + prefix_ids, prefix_ids)
        ids = self._tokens(text + response_prefix)
        clean = ids[: len(prompt_ids)] == prompt_ids
        return Opening(ids, ids[len(prompt_ids) :] if clean else None)

    def prompt_text(self, prompt: PromptText) -> str:
        """The conversation as text, up to where the response starts.

        Raises:
            DataError: As in :meth:`opening`.
        """
        return self._formatted(_conversation(prompt))[0]

    def text_after(self, opening: Opening, drawn: tuple[int, ...]) -> str:
        """The text that ``drawn`` adds to the opening, control tokens left out.

        It is decoded behind the opening's last tokens, because a tokenizer may decode a token differently
        at the start of a text (a leading space is dropped there).
        """
        context = list(opening.token_ids[-_CONTEXT_TOKENS:])
        before = self.text(context)
        whole = self.text([*context, *drawn])
        return whole[len(before) :] if whole.startswith(before) else self.text(list(drawn))

    def text(self, ids: Sequence[int]) -> str:
        """The tokens as text of their own, control tokens left out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def end_of_turn_ids(self) -> set[int]:
        """Tokens that end the assistant's turn: the tokenizer's, and what follows it in the template."""
        ends = {self.tokenizer.eos_token_id} - {None}
        try:
            answered = self._render([{"role": "user", "content": "?"}, _ANSWER], add_generation_prompt=False)
        except DataError:  # A template that wants another conversation; the tokenizer's own has to do.
            return ends
        after = answered[answered.rfind(_PROBE) + len(_PROBE) :] if _PROBE in answered else ""
        control = self._control_ids()
        return ends | set([token for token in self._tokens(after) if token in control][:1])

    def _control_ids(self) -> set[int]:
        added = self.tokenizer.added_tokens_decoder
        return set(self.tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}

    def _spells_control_token(self, text: str) -> bool:
        return not self._control_ids().isdisjoint(self._tokens(text))

    def _format(self, conversation: tuple[tuple[tuple[str, str], ...], ...]) -> tuple[str, tuple[int, ...]]:
        messages = [dict(message) for message in conversation]
        if not messages or messages[-1]["role"] == "assistant":
            raise DataError("the prompt must end before the assistant's turn")
        text = self._render(messages, add_generation_prompt=True)
        if text == self._render(messages, add_generation_prompt=False):
            text += self._assistant_header(messages, text)
        return text, self._tokens(text)

    def _assistant_header(self, messages: Sequence[Any], text: str) -> str:
        """What a template without a generation prompt writes before the answer of a finished conversation."""
        answered = self._render([*messages, _ANSWER], add_generation_prompt=False)
        if not answered.startswith(text):
            return ""
        header = answered[len(text) : answered.rfind(_PROBE)]
        return header if header.strip() else ""

    def _render(self, messages: Sequence[Any], *, add_generation_prompt: bool) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # Templates raise whatever they like.
            raise DataError(f"the chat template refuses the prompt ({error})") from error
        return text

    def _tokens(self, text: str, *, split_special_tokens: bool = False) -> tuple[int, ...]:
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=split_special_tokens)
        return tuple(encoded["input_ids"])


_ANSWER: Message = {"role": "assistant", "content": _PROBE}


def _conversation(prompt: PromptText) -> tuple[tuple[tuple[str, str], ...], ...]:
    """The prompt as something that can be a key."""
    messages: Sequence[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return tuple(tuple((name, str(value)) for name, value in message.items()) for message in messages)
