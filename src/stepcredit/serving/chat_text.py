"""A prompt and a response in one text, as a chat template writes them, taken apart again."""

from __future__ import annotations

import re
from typing import Any

from stepcredit.chat_templates import render
from stepcredit.encoding import ChatEncoding
from stepcredit.encoding.template import special_token_ids
from stepcredit.scorers.base import ResponseScorer
from stepcredit.serving.errors import RequestError
from stepcredit.types import FormattedPrompt, Message, Rollout

_PROBE = "stepcredit0probe"


class ChatText:
    """Takes texts in a model's chat format apart: one user turn, or a given prompt, and the answer.

    Args:
        scorer: The model; its tokenizer's template is what texts are read by.
    """

    def __init__(self, scorer: ResponseScorer) -> None:
        tokenizer: Any = getattr(scorer.encoding, "tokenizer", None)
        self._before = self._between = self._end = ""
        self._control = re.compile(r"(?!)")
        self._takes_formatted = isinstance(scorer.encoding, ChatEncoding)
        if tokenizer is None:
            return
        end = getattr(scorer.encoding, "end_of_turn_id", tokenizer.eos_token_id)
        self._end = "" if end is None else str(tokenizer.convert_ids_to_tokens(end))
        marks = {str(tokenizer.convert_ids_to_tokens(token_id)) for token_id in special_token_ids(tokenizer)}
        if getattr(tokenizer, "chat_template", None):
            turn: Message = {"role": "user", "content": _PROBE}
            text = render(tokenizer, [turn], add_generation_prompt=True)
            self._before, _, self._between = text.partition(_PROBE)
            # It marks a turn even where the template writes no control tokens.
            marks |= {self._between} if self._between.strip() else set()
        if marks:
            self._control = re.compile("|".join(map(re.escape, sorted(marks))))

    def rollout(self, text: str, field: str, prompt: str | None = None) -> Rollout:
        """The text as a rollout whose id is the last part of ``field``.

        Args:
            field: Where the text stands in the request.
            prompt: How it begins, where the caller says so; in the chat format, or plain.

        Raises:
            RequestError: It does not begin with ``prompt``, is not in the chat format, or holds other turns
                that would be scored as plain text.
        """
        if prompt is not None and not text.startswith(prompt):
            raise RequestError(422, "does not begin with its prompt", field)
        asked, answer = self._take_apart(text, prompt)
        body = answer.rstrip()
        ended = bool(self._end) and body.endswith(self._end)
        response = body.removesuffix(self._end) if ended else answer
        as_text = (response,) if isinstance(asked, FormattedPrompt) else (asked or "", response)
        if asked is None or any(map(self._control.search, as_text)):
            raise RequestError(
                422,
                "is not one user turn and an answer in this model's chat format; "
                "send prompts too, or use /v1/score",
                field,
            )
        return Rollout(
            id=field.rpartition(".")[2],
            prompt_id="0",
            prompt=asked,
            response=response,
            finish_reason="stop" if ended else "length",
        )

    def _take_apart(self, text: str, prompt: str | None) -> tuple[str | None, str]:
        """What is asked and what follows, where the text has that form."""
        if prompt is not None and not self._control.search(prompt):
            return prompt, text[len(prompt) :]
        if prompt is not None and self._takes_formatted:
            return FormattedPrompt(prompt), text[len(prompt) :]
        if not self._between or not text.startswith(self._before) or self._between not in text:
            return None, ""
        asked, _, answer = text[len(self._before) :].partition(self._between)
        return asked, answer
