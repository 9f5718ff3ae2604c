"""The clean convention: a response after its chat-formatted prompt, each token in the step it starts in.

The prompt with its generation prompt, the response and the end-of-turn token are one token sequence; the
response's tokens and the end-of-turn are scored. Nothing is rewritten, and what cannot be done exactly
is an :class:`~stepcredit.encoding.base.EncodingError`.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from stepcredit.encoding.base import (
    LEAVE_OUT,
    EncodedSteps,
    EncodingError,
    StepEncoding,
    as_messages,
    check_length,
)
from stepcredit.encoding.template import check_tokenizer, end_of_turn_id, prompt_text, special_token_ids
from stepcredit.encoding.token_starts import token_starts
from stepcredit.steps import StepRule, step_token_ends, steps_of
from stepcredit.types import Encoded, PromptText, Rollout, Step

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROMPTS_KEPT = 256


@dataclass(frozen=True, slots=True)
class _EncodedPrompt:
    """A prompt's tokens, cut before its last control token, so that responses need not repeat the start.

    Control tokens split a text before anything else looks at it, so what follows one is tokenised the
    same with and without what is before it.

    Attributes:
        head_ids: Tokens before the last control token.
        tail: Text from the last control token on (all of it where there is none).
        tail_ids: The tail's tokens.
        bare_tail: The tail without its control token.
        bare_tail_ids: Its tokens.
    """

    head_ids: tuple[int, ...]
    tail: str
    tail_ids: tuple[int, ...]
    bare_tail: str
    bare_tail_ids: tuple[int, ...]


class ChatEncoding(StepEncoding):
    """Encodes rollouts by the tokenizer's chat template.

    Text in a response is never read as a control token: a response that spells ``<|im_end|>`` is scored
    as these characters.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        step_rule: How responses are split into steps.
        max_tokens: The model's context; longer sequences are refused.
        tokenizer_hash: Identity of the tokenizer. A rollout's ``response_token_ids`` are used where its
            ``tokenizer`` equals this, else its text is tokenised.

    Raises:
        CheckpointError: The tokenizer has no offsets, no chat template or no end-of-turn token.
    """

    name = "clean"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        step_rule: StepRule,
        max_tokens: int | None = None,
        *,
        tokenizer_hash: str | None = None,
    ) -> None:
        check_tokenizer(tokenizer)
        super().__init__(tokenizer, step_rule, max_tokens)
        self.tokenizer_hash = tokenizer_hash
        self.end_of_turn_id = end_of_turn_id(tokenizer)
        special = special_token_ids(tokenizer)
        # Text can be unknown to the vocabulary, so an unknown token says nothing of turns.
        self._control_ids = special - {tokenizer.unk_token_id}
        spellings: list[str] = [str(tokenizer.convert_ids_to_tokens(i)) for i in sorted(special)]
        spellings.sort(key=len, reverse=True)
        self._control_text = re.compile("|".join(map(re.escape, spellings)) or r"(?!)")
        self._prompt = lru_cache(maxsize=_PROMPTS_KEPT)(self._encode_prompt)

    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout; its steps are those that the row lists, else those of the step rule.

        Raises:
            EncodingError: The prompt's tokens are not a prefix, the sequence is too long, there is no
                token to score, or the recorded token ids are not those of the response.
        """
        return self.encode_with_steps(rollout, steps_of(rollout, self.step_rule))

    def encode_with_steps(self, rollout: Rollout, steps: tuple[Step, ...]) -> EncodedSteps:
        """As :meth:`encode`, with steps that are already known and tile the response."""
        prompt = self._prompt(_prompt_key(rollout.prompt))
        is_ours = self.tokenizer_hash is not None and rollout.tokenizer == self.tokenizer_hash
        if rollout.response_token_ids is not None and is_ours:
            response_ids, starts = self._recorded_tokens(rollout, rollout.response_token_ids, prompt)
        else:
            response_ids, starts = self._tokenise(rollout, prompt)
        ended = bool(response_ids) and response_ids[-1] in self._control_ids
        if rollout.finish_reason != "length" and not ended:
            response_ids = (*response_ids, self.end_of_turn_id)
            starts = (*starts, len(rollout.response))
        if not response_ids:
            raise EncodingError(
                "nothing-to-score", "the response has no tokens", where=rollout.id, hint=LEAVE_OUT
            )
        prompt_ids = prompt.head_ids + prompt.tail_ids
        token_ids = prompt_ids + response_ids
        check_length(token_ids, self.max_tokens, rollout.id)
        encoded = Encoded(token_ids, len(prompt_ids), step_token_ends(starts, steps))
        token_ends = (*starts[1:], len(rollout.response))
        return EncodedSteps(encoded=encoded, steps=steps, token_ends=token_ends)

    def prompt_ids(self, prompt: PromptText) -> tuple[int, ...]:
        """Tokens of the chat-formatted prompt with its generation prompt."""
        encoded = self._prompt(_prompt_key(prompt))
        return encoded.head_ids + encoded.tail_ids

    def _encode_prompt(self, key: str) -> _EncodedPrompt:
        text = prompt_text(self.tokenizer, as_messages(json.loads(key)))
        ids, offsets = self._offsets(text)
        last = max((i for i, token_id in enumerate(ids) if token_id in self._control_ids), default=None)
        cut, bare = (0, 0) if last is None else offsets[last]
        tail_ids = ids[last or 0 :]
        if self._offsets(text[cut:])[0] != tail_ids:
            last, cut, tail_ids = None, 0, ids
        bare_tail_ids, _ = self._offsets(text[bare:], as_text=True)
        return _EncodedPrompt(ids[: last or 0], text[cut:], tail_ids, text[bare:], bare_tail_ids)

    def _tokenise(self, rollout: Rollout, prompt: _EncodedPrompt) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of the response's text and the character at which each starts."""
        as_text = self._control_text.search(rollout.response) is not None
        tail, tail_ids = (
            (prompt.bare_tail, prompt.bare_tail_ids) if as_text else (prompt.tail, prompt.tail_ids)
        )
        ids, offsets = self._offsets(tail + rollout.response, as_text=as_text)
        is_prefix = ids[: len(tail_ids)] == tail_ids
        if as_text:
            is_prefix = is_prefix and prompt.tail_ids[len(prompt.tail_ids) - len(tail_ids) :] == tail_ids
        if not is_prefix:
            raise EncodingError(
                "prompt-not-prefix",
                f"the response's start {rollout.response[:12]!r} merges with the prompt's last token",
                where=rollout.id,
                hint=f"record response_token_ids when sampling, or {LEAVE_OUT}",
            )
        starts = accumulate((start - len(tail) for start, _ in offsets[len(tail_ids) :]), max)
        return ids[len(tail_ids) :], tuple(starts)

    def _recorded_tokens(
        self, rollout: Rollout, recorded: tuple[int, ...], prompt: _EncodedPrompt
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens as drawn, and the character at which each starts."""
        if self._decode(recorded) != rollout.response:
            raise EncodingError(
                "tokens-do-not-match",
                "response_token_ids do not decode to the response",
                where=rollout.id,
                hint="remove the field to score the text, or sample again",
            )
        with contextlib.suppress(EncodingError):
            ids, starts = self._tokenise(rollout, prompt)
            if recorded == ids:
                return ids, starts
            if recorded[:-1] == ids and recorded[-1] in self._control_ids:
                return recorded, (*starts, len(rollout.response))
        return recorded, token_starts(self.tokenizer, rollout.response, recorded)

    def _decode(self, token_ids: tuple[int, ...]) -> str:
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def _offsets(
        self, text: str, *, as_text: bool = False
    ) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """Token ids and character offsets; with ``as_text`` no control token is recognised."""
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=as_text
        )
        return tuple(encoded["input_ids"]), tuple(encoded["offset_mapping"])


def _prompt_key(prompt: PromptText) -> str:
    return json.dumps(prompt if isinstance(prompt, str) else list(prompt), ensure_ascii=False)
