"""The clean convention: a response after its chat-formatted prompt, each token in the step it starts in.

The prompt with its generation prompt, the response and the end-of-turn token are one token sequence; the
response's tokens and the end-of-turn are scored. Nothing is rewritten, and what cannot be done exactly
is an :class:`~stepcredit.encoding.base.EncodingError`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from stepcredit.chat_templates import chat_settings, prompt_text
from stepcredit.conversations import as_messages, tools_of, unwritten_call
from stepcredit.encoding.base import (
    LEAVE_OUT,
    EncodedSteps,
    EncodingError,
    StepEncoding,
    check_length,
    merging,
)
from stepcredit.encoding.template import check_tokenizer, end_of_turn_id, special_token_ids
from stepcredit.encoding.token_starts import token_starts
from stepcredit.encoding.turns import encode_turns
from stepcredit.encoding.written import Written
from stepcredit.runs import warn
from stepcredit.steps import StepRule, grouped, listed_steps, locate, split, step_token_ends
from stepcredit.thinking import opened_block
from stepcredit.types import Encoded, FormattedPrompt, Message, PromptText, Rollout, Step

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROMPTS_KEPT = 256
_RESPONSES_KEPT = 1024


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt's tokens, cut before its last control token, so that responses need not repeat the start.

    Control tokens split a text before anything else looks at it, so what follows one is tokenised the
    same with and without what is before it.

    Attributes:
        head_ids: Tokens before the last control token.
        tail: Text from the last control token on (all of it where there is none).
        tail_ids: The tail's tokens.
        bare_tail: The tail without its control token.
        bare_tail_ids: Its tokens.
        opened: What the prompt ends with that opens the model's thinking.
        continues: Whether the response goes on with an assistant's turn.
    """

    head_ids: tuple[int, ...]
    tail: str
    tail_ids: tuple[int, ...]
    bare_tail: str
    bare_tail_ids: tuple[int, ...]
    opened: str
    continues: bool


class ChatEncoding(StepEncoding):
    """Encodes rollouts by the tokenizer's chat template.

    Text in a response is never read as a control token: a response that spells ``<|im_end|>`` is scored
    as these characters.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        max_tokens: The model's context; longer sequences are refused.
        tokenizer_hash: Identity of the tokenizer. A rollout's ``response_token_ids`` are used where its
            ``tokenizer`` equals this, else its text is tokenised.

    Raises:
        CheckpointError: The tokenizer has no offsets, no chat template or no end-of-turn token.
    """

    name = "clean"
    groups_steps = True

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
        self._boundary = chat_settings(tokenizer).boundary
        self._has_warned = False
        self._prompt = lru_cache(maxsize=_PROMPTS_KEPT)(self._encode_prompt)
        # Both in one attribute, so that no other thread sees the responses of one prompt beside another.
        self._last: tuple[EncodedPrompt | None, dict[Hashable, EncodedSteps]] = None, {}

    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout; its steps are those that the row lists, else those of the step rule.

        Raises:
            EncodingError: The prompt's tokens are not a prefix, the sequence is too long, there is no
                token to score, or the recorded token ids are not those of the response.
        """
        if rollout.turns is not None:
            return encode_turns(self, rollout)
        listed = listed_steps(rollout)
        known = None if listed is None else locate(rollout, listed)
        return self._encode(rollout, self.prompt_of(rollout), known)

    def encode_with_steps(self, rollout: Rollout, steps: tuple[Step, ...]) -> EncodedSteps:
        """As :meth:`encode`, with steps that are already known and tile the response."""
        return self._encode(rollout, self.prompt_of(rollout), steps)

    def prompt_of(self, rollout: Rollout) -> EncodedPrompt:
        """What the response follows."""
        return self._prompt(_prompt_key(rollout.prompt, tools_of(rollout.extras, rollout.id)))

    def prompt_ids(self, prompt: PromptText) -> tuple[int, ...]:
        """Tokens of the chat-formatted prompt with its generation prompt."""
        encoded = self._prompt(_prompt_key(prompt, None))
        return encoded.head_ids + encoded.tail_ids

    def _encode(
        self, rollout: Rollout, prompt: EncodedPrompt, known: tuple[Step, ...] | None
    ) -> EncodedSteps:
        """Equal responses to one prompt, which mostly lie side by side, are encoded once."""
        is_ours = self.tokenizer_hash is not None and rollout.tokenizer == self.tokenizer_hash
        recorded = rollout.response_token_ids if is_ours else None
        last, alike = self._last
        if last is not prompt or len(alike) >= _RESPONSES_KEPT:
            alike = {}
            self._last = prompt, alike
        key = rollout.response, rollout.finish_reason == "length", recorded, known
        if key not in alike:
            alike[key] = self._encode_anew(rollout, prompt, recorded, known)
        check_length(alike[key].encoded.token_ids, self.max_tokens, rollout.id)
        return alike[key]

    def _encode_anew(
        self,
        rollout: Rollout,
        prompt: EncodedPrompt,
        recorded: tuple[int, ...] | None,
        known: tuple[Step, ...] | None,
    ) -> EncodedSteps:
        written = Written.after(prompt.opened, rollout.response, continues=prompt.continues)
        if recorded is not None:
            written = Written(rollout.response)
            response_ids, starts = self._recorded_tokens(rollout, recorded, prompt)
        else:
            response_ids, starts = self._tokenise(rollout.id, written.text, prompt)
        ended = bool(response_ids) and response_ids[-1] in self._control_ids
        if rollout.finish_reason != "length" and not ended:
            response_ids = (*response_ids, self.end_of_turn_id)
            starts = (*starts, len(written.text))
        if not response_ids:
            raise EncodingError(
                "nothing-to-score", "the response has no tokens", where=rollout.id, hint=LEAVE_OUT
            )
        prompt_ids = prompt.head_ids + prompt.tail_ids
        inside = split(written.text, self.step_rule) if known is None else written.inside(known)
        most = self.step_rule.max_tokens if known is None else None
        steps, ends = grouped(inside, step_token_ends(starts, inside), most)
        encoded = Encoded(prompt_ids + response_ids, len(prompt_ids), ends)
        token_ends = [written.place(start) for start in (*starts[1:], len(written.text))]
        return EncodedSteps(
            encoded=encoded,
            steps=written.outside(steps, rollout.response) if known is None else known,
            token_ends=tuple(token_ends),
        )

    def _encode_prompt(self, key: str) -> EncodedPrompt:
        prompt, tools, is_formatted = json.loads(key)
        text, continues = prompt, False
        if not is_formatted:
            messages = as_messages(prompt)
            continues = messages[-1]["role"] == "assistant"
            text = prompt_text(self.tokenizer, messages, tools)
            self.warn_of_lost_calls(messages, text)
        ids, offsets = self.offsets(text)
        last = max((i for i, token_id in enumerate(ids) if token_id in self._control_ids), default=None)
        cut, bare = (0, 0) if last is None else offsets[last]
        tail_ids = ids[last or 0 :]
        if self.offsets(text[cut:])[0] != tail_ids:
            last, cut, tail_ids = None, 0, ids
        bare_tail_ids, _ = self.offsets(text[bare:], as_text=True)
        return EncodedPrompt(
            head_ids=ids[: last or 0],
            tail=text[cut:],
            tail_ids=tail_ids,
            bare_tail=text[bare:],
            bare_tail_ids=bare_tail_ids,
            opened=opened_block(text),
            continues=continues,
        )

    def warn_of_lost_calls(self, messages: Sequence[Message], text: str) -> None:
        """Say once that the template has no place for calls of tools: models neither see nor score them."""
        name = unwritten_call(messages, text)
        if name is not None and not self._has_warned:
            self._has_warned = True
            warn(
                f"the chat template leaves out calls of tools, first that of {name!r}: they are neither seen "
                "nor scored; use a model whose template writes them"
            )

    def _tokenise(
        self, name: str, response: str, prompt: EncodedPrompt
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of the response's text and the character at which each starts."""
        as_text = self.spells_control_token(response)
        if self._boundary == "apart":
            ids, offsets = self.offsets(response, as_text=as_text)
            return ids, tuple(accumulate((start for start, _ in offsets), max))
        tail, tail_ids = (
            (prompt.bare_tail, prompt.bare_tail_ids) if as_text else (prompt.tail, prompt.tail_ids)
        )
        ids, offsets = self.offsets(tail + response, as_text=as_text)
        is_prefix = ids[: len(tail_ids)] == tail_ids
        if as_text:
            is_prefix = is_prefix and prompt.tail_ids[len(prompt.tail_ids) - len(tail_ids) :] == tail_ids
        if not is_prefix:
            raise merging(response, name)
        starts = accumulate((start - len(tail) for start, _ in offsets[len(tail_ids) :]), max)
        return ids[len(tail_ids) :], tuple(starts)

    def _recorded_tokens(
        self, rollout: Rollout, recorded: tuple[int, ...], prompt: EncodedPrompt
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
            ids, starts = self._tokenise(rollout.id, rollout.response, prompt)
            if recorded == ids:
                return ids, starts
            if recorded[:-1] == ids and recorded[-1] in self._control_ids:
                return recorded, (*starts, len(rollout.response))
        return recorded, token_starts(self.tokenizer, rollout.response, recorded)

    def _decode(self, token_ids: tuple[int, ...]) -> str:
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def spells_control_token(self, text: str) -> bool:
        """Whether a text would be read as control tokens if it were not known to be text."""
        return self._control_text.search(text) is not None

    def offsets(
        self, text: str, *, as_text: bool = False
    ) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """Token ids and character offsets; with ``as_text`` no control token is recognised."""
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=as_text
        )
        return tuple(encoded["input_ids"]), tuple(encoded["offset_mapping"])


def _prompt_key(prompt: PromptText, tools: list[Any] | None) -> str:
    turns = prompt if isinstance(prompt, str) else list(prompt)
    return json.dumps([turns, tools, isinstance(prompt, FormattedPrompt)], ensure_ascii=False)
