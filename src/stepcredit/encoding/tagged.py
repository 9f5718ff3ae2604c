"""Formats of step models that give a step's score at a tag after it: Math-Shepherd, RLHFlow, Qwen.

Each is the rule of the model's card, written out. A step's last token is the one at which the model is
read (:func:`~stepcredit.encoding.base.read_positions`).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stepcredit.chat_templates import render
from stepcredit.conversations import answered, plain_text
from stepcredit.encoding.base import (
    LEAVE_OUT,
    EncodedSteps,
    EncodingError,
    StepEncoding,
    check_length,
    place_in,
)
from stepcredit.errors import CheckpointError
from stepcredit.steps import StepRule, step_contents, steps_of
from stepcredit.types import Encoded, Message, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QWEN_SYSTEM_PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."


class MathShepherdEncoding(StepEncoding):
    """``question step ки``, steps on lines of their own; "+" against "-" is read at each ``ки``.

    Wang et al. 2023 (arXiv:2312.08935).

    Raises:
        CheckpointError: The tokenizer lacks the label tokens.
    """

    name = "math-shepherd"
    tag = "ки"
    line_end = "\n"

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, step_rule: StepRule, max_tokens: int | None = None
    ) -> None:
        super().__init__(tokenizer, step_rule, max_tokens)
        labels = self.ids("+ -")
        if len(labels) != 2:  # vocabularies without " -" as one token
            labels = [self.ids(label)[-1] for label in "+-"]
        self.label_ids: tuple[int, int] = (labels[0], labels[1])
        if self.label_ids[0] == self.label_ids[1]:
            raise CheckpointError('gives "+" and "-" the same token', where=tokenizer.name_or_path)

    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout."""
        text = f"{plain_text(rollout.prompt)} "
        start, tags = len(text), []
        for number, content in enumerate(step_contents(rollout, self.step_rule)):
            text += f"{self.line_end if number else ''}{content} {self.tag}"
            tags.append(len(text) - 1)
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        return _at_tags(rollout, self, encoded, start, tags)


class QwenPRMEncoding(StepEncoding):
    """The conversation with ``<extra_0>`` after each step, where the classifier's head is read.

    Zhang et al. 2025 (arXiv:2501.07301).

    Raises:
        CheckpointError: The tokenizer lacks the tag or a chat template.
    """

    name = "qwen-prm"
    tag = "<extra_0>"
    has_template = True

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, step_rule: StepRule, max_tokens: int | None = None
    ) -> None:
        super().__init__(tokenizer, step_rule, max_tokens)
        if len(self.ids(self.tag)) != 1:
            raise CheckpointError(f"{self.tag} is not one token", where=tokenizer.name_or_path)

    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout; a prompt without a system turn gets the one of the model's card.

        Raises:
            EncodingError: The sequence is too long, or the response holds the tag.
        """
        answer = "".join(text + self.tag for text in step_contents(rollout, self.step_rule))
        conversation = answered(rollout.prompt, answer)
        if conversation[0]["role"] != "system":
            conversation.insert(0, {"role": "system", "content": QWEN_SYSTEM_PROMPT})
        text = render(self.tokenizer, conversation, add_generation_prompt=False)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        start = place_in(text, answer, rollout.id)
        tags = [match.end() - 1 for match in re.finditer(re.escape(self.tag), text) if match.start() >= start]
        return _at_tags(rollout, self, encoded, start, tags)


class RLHFlowEncoding(StepEncoding):
    """Each step is a user turn (the first with the problem) that is answered by "+".

    The probability of "+" against "-" is read before each answer (Xiong et al. 2024, RLHFlow).

    Raises:
        CheckpointError: The tokenizer has no chat template.
    """

    name = "rlhflow"
    has_template = True

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, step_rule: StepRule, max_tokens: int | None = None
    ) -> None:
        super().__init__(tokenizer, step_rule, max_tokens)
        self.label_ids: tuple[int, int] = (self.ids("+")[-1], self.ids("-")[-1])

    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout."""
        question = plain_text(rollout.prompt)
        conversation: list[Message] = []
        ends: list[int] = []
        token_ids: list[int] = []
        for text in step_contents(rollout, self.step_rule):
            turn = text if conversation else f"{question} {text}"
            conversation += [{"role": "user", "content": turn}, {"role": "assistant", "content": "+"}]
            rendered = render(self.tokenizer, conversation, add_generation_prompt=False)
            longer = self.ids(rendered)
            if longer[: len(token_ids)] != token_ids or self.label_ids[0] not in longer[len(token_ids) :]:
                raise EncodingError(
                    "prompt-not-prefix",
                    "the chat template changes earlier turns when one is added",
                    where=rollout.id,
                    hint="use the chat template that belongs to the model",
                )
            token_ids = longer
            answer = len(token_ids) - 1 - token_ids[::-1].index(self.label_ids[0])
            ends.append(answer - 1)  # one past the token before the answer, counted from token 1
        check_length(token_ids, self.max_tokens, rollout.id)
        return EncodedSteps(
            encoded=Encoded(tuple(token_ids), 1, tuple(ends)), steps=steps_of(rollout, self.step_rule)
        )


def _at_tags(
    rollout: Rollout,
    encoding: MathShepherdEncoding | QwenPRMEncoding,
    encoded: Any,
    start: int,
    tags: Sequence[int],
) -> EncodedSteps:
    """Steps that end at the tags whose last characters are given; scoring starts at character ``start``."""
    if encoding.tag in rollout.response:
        raise EncodingError(
            "tag-in-response",
            f"the response holds {encoding.tag}, at which the model is read",
            where=rollout.id,
            hint=LEAVE_OUT,
        )
    token_ids = tuple(encoded["input_ids"])
    check_length(token_ids, encoding.max_tokens, rollout.id)
    # Tokens without text (a start or end of text) have no place of their own.
    spans = [(begin, index) for index, (begin, end) in enumerate(encoded["offset_mapping"]) if end > begin]
    covering = [spans[bisect_right(spans, (tag, len(token_ids))) - 1][1] for tag in (start, *tags)]
    first = max(covering[0], 1)
    ends = tuple(index + 1 - first for index in covering[1:])
    steps = steps_of(rollout, encoding.step_rule)
    return EncodedSteps(encoded=Encoded(token_ids, first, ends), steps=steps)
