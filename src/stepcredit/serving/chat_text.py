"""A prompt and a response in one text, as a chat template writes them, taken apart again."""

from __future__ import annotations

from typing import Any

from stepcredit.chat_templates import render
from stepcredit.scorers.base import ResponseScorer
from stepcredit.serving.errors import RequestError
from stepcredit.types import Message, Rollout

_PROBE = "stepcredit0probe"


class ChatText:
    """Takes texts in a model's chat format apart; one user turn and the answer.

    Args:
        scorer: The model; its tokenizer's template is what texts are read by.
    """

    def __init__(self, scorer: ResponseScorer) -> None:
        tokenizer: Any = getattr(scorer.encoding, "tokenizer", None)
        self._before = self._between = self._end = ""
        if tokenizer is None or not getattr(tokenizer, "chat_template", None):
            return
        turn: Message = {"role": "user", "content": _PROBE}
        text = render(tokenizer, [turn], add_generation_prompt=True)
        self._before, _, self._between = text.partition(_PROBE)
        end = getattr(scorer.encoding, "end_of_turn_id", tokenizer.eos_token_id)
        self._end = "" if end is None else str(tokenizer.convert_ids_to_tokens(end))

    def rollout(self, text: str, field: str, prompt: str | None = None) -> Rollout:
        """The text as a rollout whose id is the last part of ``field``.

        Args:
            field: Where the text stands in the request.
            prompt: How it begins, where the caller says so; in the chat format, or plain.

        Raises:
            RequestError: It does not begin with ``prompt``, or is not in the chat format.
        """
        if prompt is not None and not text.startswith(prompt):
            raise RequestError(422, "does not begin with its prompt", field)
        asked, answer = self._take_apart(text)
        if asked is None and prompt is not None:
            asked, answer = prompt, text[len(prompt) :]
        if asked is None:
            raise RequestError(
                422,
                "is not one user turn and an answer in this model's chat format; "
                "send prompts too, or use /v1/score",
                field,
            )
        body = answer.rstrip()
        ended = bool(self._end) and body.endswith(self._end)
        return Rollout(
            id=field.rpartition(".")[2],
            prompt_id="0",
            prompt=asked,
            response=body.removesuffix(self._end) if ended else answer,
            finish_reason="stop" if ended else "length",
        )

    def _take_apart(self, text: str) -> tuple[str | None, str]:
        """The user's text and what follows the generation prompt, where the text has that form."""
        if not self._between or not text.startswith(self._before) or self._between not in text:
            return None, ""
        asked, _, answer = text[len(self._before) :].partition(self._between)
        return asked, answer
