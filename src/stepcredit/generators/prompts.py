"""Prompts and started responses as the token ids that a policy continues."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stepcredit.chat_templates import chat_settings, prompt_text, text_after_answer
from stepcredit.conversations import as_messages, tools_of
from stepcredit.encoding.written import Written
from stepcredit.errors import CheckpointError, DataError, UserError
from stepcredit.thinking import opened_block
from stepcredit.types import GenerationRequest, PromptText

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
                hint="use an instruction-tuned model, or add a chat_template.jinja beside the tokenizer",
            )
        self.tokenizer = tokenizer
        self._formatted = lru_cache(maxsize=1024)(self._format)

    def opening_of(self, request: GenerationRequest) -> Opening:
        """The token ids that a request's samples continue.

        Raises:
            DataError: The template refuses the conversation.
        """
        prompt, tools = request.prompt, tools_of(request.prompt.extras, request.prompt.id)
        return self.opening(prompt.prompt, request.response_prefix, request.response_prefix_ids, tools)

    def opening(
        self,
        prompt: PromptText,
        response_prefix: str = "",
        prefix_ids: tuple[int, ...] | None = None,
        tools: Sequence[Any] | None = None,
    ) -> Opening:
        """The token ids to continue; prompt and prefix are tokenised as one text unless the ids are known.

        Raises:
            DataError: The template refuses the conversation.
        """
        text, prompt_ids = self._formatted(_key(prompt, tools))
        if not response_prefix:
            return Opening(prompt_ids, ())
        if prefix_ids is not None:
            return Opening(prompt_ids + prefix_ids, prefix_ids)
        continues = as_messages(prompt)[-1]["role"] == "assistant"
        response_prefix = Written.after(opened_block(text), response_prefix, continues=continues).text
        if self._spells_control_token(response_prefix):
            prefix_ids = self._tokens(response_prefix, split_special_tokens=True)
            return Opening(prompt_ids + prefix_ids, prefix_ids)
        if chat_settings(self.tokenizer).boundary == "apart":
            prefix_ids = self._tokens(response_prefix)
            return Opening(prompt_ids + prefix_ids, prefix_ids)
        ids = self._tokens(text + response_prefix)
        clean = ids[: len(prompt_ids)] == prompt_ids
        return Opening(ids, ids[len(prompt_ids) :] if clean else None)

    def prompt_text(self, prompt: PromptText) -> str:
        """The conversation as text, up to where the response starts.

        Raises:
            DataError: As in :meth:`opening`.
        """
        return self._formatted(_key(prompt, None))[0]

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
            after = text_after_answer(self.tokenizer)
        except DataError:  # A template that wants another conversation; the tokenizer's own has to do.
            return ends
        control = self._control_ids()
        return ends | set([token for token in self._tokens(after) if token in control][:1])

    def check_stop(self, stop: Sequence[str], end_tokens: Collection[int]) -> None:
        """Refuse stop strings that would never match: control tokens are left out of a response's text.

        Args:
            end_tokens: Those that end a turn anyway.

        Raises:
            UserError: One holds a control token that does not.
        """
        others = self._control_ids().difference(end_tokens, {self.tokenizer.unk_token_id})
        for text in stop:
            if others.intersection(self._tokens(text)):
                raise UserError(
                    f"{text!r} holds a special token that ends no turn, and the text of a response has none",
                    where="--stop",
                    hint="stop at plain text, or add it to eos_token_id in generation_config.json",
                )

    def _control_ids(self) -> set[int]:
        added = self.tokenizer.added_tokens_decoder
        return set(self.tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}

    def _spells_control_token(self, text: str) -> bool:
        return not self._control_ids().isdisjoint(self._tokens(text))

    def _format(self, key: str) -> tuple[str, tuple[int, ...]]:
        prompt, tools = json.loads(key)
        text = prompt_text(self.tokenizer, as_messages(prompt), tools)
        return text, self._tokens(text)

    def _tokens(self, text: str, *, split_special_tokens: bool = False) -> tuple[int, ...]:
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=split_special_tokens)
        return tuple(encoded["input_ids"])


def _key(prompt: PromptText, tools: Sequence[Any] | None) -> str:
    """The prompt as something that can be a key."""
    turns = prompt if isinstance(prompt, str) else list(prompt)
    return json.dumps([turns, tools], ensure_ascii=False)
