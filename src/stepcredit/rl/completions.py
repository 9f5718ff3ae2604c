"""A trainer's completions as rollouts: the tokens as they were drawn, and whether each has ended.

The token ids take precedence over the text, which a trainer may have parsed or trimmed. A completion that
does not end with a control token was cut off, so no end-of-turn is scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints import tokenizer_hash
from stepcredit.data.messages import prompt_field, prompt_name, response_turns
from stepcredit.encoding.template import special_token_ids
from stepcredit.errors import DataError
from stepcredit.types import Message, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Completion = str | Sequence[Mapping[str, Any]]
"""Text, or the messages that follow a prompt's."""


class PolicyTokens:
    """What a policy's token ids mean."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.hash = tokenizer_hash(tokenizer)
        self._size = len(tokenizer)
        self._control_ids = special_token_ids(tokenizer) - {tokenizer.unk_token_id}

    def text(self, token_ids: Sequence[int]) -> str:
        """The text without control tokens.

        Raises:
            DataError: A token is not in the vocabulary.
        """
        wrong = next((int(token_id) for token_id in token_ids if not 0 <= token_id < self._size), None)
        if wrong is not None:
            raise DataError(
                f"token {wrong} is not one of the tokenizer's {self._size:,}",
                where="completion_ids",
                hint="pass ids without padding, and tokenizer=, the policy's own",
            )
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def has_ended(self, token_ids: Sequence[int]) -> bool:
        """Whether the policy ended its turn: the last token is a control token."""
        return len(token_ids) > 0 and int(token_ids[-1]) in self._control_ids


def as_rollouts(
    prompts: Sequence[str | Sequence[Message]],
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]] | None,
    tokens: PolicyTokens | None,
    tools: Sequence[Any] | None = None,
) -> list[Rollout]:
    """Completions as rollouts, in their order.

    Args:
        prompts: One per completion: text, or messages.
        completions: As the trainer decoded them.
        completion_ids: The tokens as drawn, end-of-turn included, without padding; without them every
            completion counts as finished.
        tokens: Reads the ids.
        tools: The tools of each completion's conversation, as the data set's column ``tools`` has them.

    Raises:
        DataError: Numbers do not match, a completion with ids has several turns (ids do not say who wrote
            what), or its ids are of another tokenizer.
    """
    counts = {"prompts": len(prompts), "completions": len(completions)}
    if completion_ids is not None:
        counts["completion_ids"] = len(completion_ids)
    if tools is not None:
        counts["tools"] = len(tools)
    if len(set(counts.values())) > 1:
        raise DataError(
            "there are " + ", ".join(f"{count} {name}" for name, count in counts.items()),
            hint="pass one of each per completion",
        )
    rollouts = []
    for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        name = f"completion-{place}"
        plain = list(prompt) if isinstance(prompt, tuple) else prompt
        question = prompt_field({"prompt": plain}, "prompt", name)
        common = {"id": name, "prompt_id": prompt_name(question), "index": place, "prompt": question}
        if tools is not None:
            common["extras"] = {"tools": tools[place]}
        if completion_ids is None or tokens is None:
            text, turns = completion, None
            if not isinstance(completion, str):
                text, turns = response_turns(list(completion), "completion", name)
            rollouts.append(Rollout(**common, response=text, turns=turns))  # type: ignore[arg-type]
            continue
        text = _assistant_text(completion, name)
        ids = tuple(int(token_id) for token_id in completion_ids[place])
        drawn = tokens.text(ids)
        if text.strip() not in drawn:
            raise DataError(
                f"its token ids decode to {drawn[:40]!r}, which does not contain its text {text[:40]!r}",
                where=name,
                hint="pass tokenizer=, the policy's own",
            )
        rollouts.append(
            Rollout(
                **common,  # type: ignore[arg-type]
                response=drawn,
                response_token_ids=ids,
                tokenizer=tokens.hash,
                finish_reason="stop" if tokens.has_ended(ids) else "length",
            )
        )
    return rollouts


def _assistant_text(completion: Completion, name: str) -> str:
    """The text of a completion of one assistant's turn.

    Raises:
        DataError: It is anything else.
    """
    if isinstance(completion, str):
        return completion
    text, turns = response_turns(list(completion), "completion", name)
    one = turns is None or len(turns) == 1
    if not one or (turns is not None and turns[0].get("tool_calls")):
        raise DataError(
            "has several turns or a tool call, so its text does not say which tokens the policy wrote",
            where=name,
            hint="use stepcredit.rl.token_rewards, which reads token ids and the trainer's loss mask",
        )
    return text
