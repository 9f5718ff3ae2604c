"""The conventions of the method's two published evaluators, for comparability with published numbers.

Both rewrite a response as ``Step 1: ...`` paragraphs of one assistant message and find step boundaries as
lengths of conversations cut after k steps. Since a cut conversation keeps its end-of-turn, a boundary
reaches a token or two into the next step: that is what the published numbers contain, not an oversight
here. The clean convention is :class:`~stepcredit.encoding.chat.ChatEncoding`.

Legend: a conversation cut after k steps has ``length_k`` tokens and the boundary ``b_k = length_k - 2``.
Entry ``b_k`` of the evaluators' shifted log-probabilities belongs to token ``b_k + 1``.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from itertools import accumulate

from stepcredit.chat_templates import render
from stepcredit.conversations import answered
from stepcredit.encoding.base import (
    LEAVE_OUT,
    EncodedSteps,
    EncodingError,
    StepEncoding,
    check_length,
    place_in,
)
from stepcredit.steps import join, step_texts
from stepcredit.types import Encoded, PromptText, Rollout

_LLAMA3_TAILS = ("<|start_header_id|>assistant<|end_header_id|>", "<|eot_id|>")


class PublishedEncoding(StepEncoding):
    """What the two evaluators have in common."""

    has_template = True

    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout; offsets refer to the rewritten response, ``scored_text``.

        Raises:
            EncodingError: The sequence is too long, or there is no step.
        """
        texts = [f"Step {number}: {text}" for number, text in enumerate(self.step_texts(rollout), 1)]
        if not texts:
            raise EncodingError(
                "nothing-to-score", "the response has no steps", where=rollout.id, hint=LEAVE_OUT
            )
        prompt = rollout.prompt
        steps = join(texts, "\n\n")
        whole = self._render(prompt, texts)
        encoded_whole = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
        token_ids = tuple(encoded_whole["input_ids"])
        check_length(token_ids, self.max_tokens, rollout.id)
        boundaries = [len(self.ids(self.cut(prompt, texts, count))) - 2 for count in range(len(texts) + 1)]
        start = self.scored_start(boundaries[0])
        ends = (min(boundary + 2, len(token_ids)) - start for boundary in boundaries[1:])
        scored_text = "".join(step.text for step in steps)
        text_start = place_in(whole, scored_text, rollout.id)
        starts = accumulate((begin - text_start for begin, _ in encoded_whole["offset_mapping"][start:]), max)
        bounded = [min(max(begin, 0), len(scored_text)) for begin in starts]
        return EncodedSteps(
            encoded=Encoded(token_ids, start, tuple(accumulate(ends, max))),
            steps=steps,
            token_ends=(*bounded[1:], len(scored_text)),
            scored_text=scored_text,
        )

    @abstractmethod
    def step_texts(self, rollout: Rollout) -> list[str]:
        """The response's steps before they are numbered."""

    @abstractmethod
    def scored_start(self, first_boundary: int) -> int:
        """The first token whose log-probability counts."""

    def cut(self, prompt: PromptText, texts: Sequence[str], count: int) -> str:
        """The conversation after ``count`` steps, as the evaluators write it."""
        text = self.trim(self._render(prompt, texts[:count]).strip(), is_whole=count == len(texts))
        return text + "\n\n" if 0 < count < len(texts) else text

    def trim(self, text: str, *, is_whole: bool) -> str:
        """What is cut off the end of a conversation."""
        del is_whole
        return text

    def _render(self, prompt: PromptText, texts: Sequence[str]) -> str:
        conversation = answered(prompt, "\n\n".join(texts))
        return render(self.tokenizer, conversation, add_generation_prompt=False)


class ProcessBenchEncoding(PublishedEncoding):
    """As the published ProcessBench evaluator encodes; the step rule cuts responses without listed steps."""

    name = "processbench"

    def step_texts(self, rollout: Rollout) -> list[str]:
        """The row's own steps if it lists them, else those of the step rule."""
        return step_texts(rollout, self.step_rule)

    def scored_start(self, first_boundary: int) -> int:
        """The evaluator masks log-probabilities: entry ``b_0`` is the first that counts."""
        return first_boundary + 1


class BestOfNEncoding(PublishedEncoding):
    """As the published best-of-n evaluator encodes: it cuts by itself, so the step rule decides nothing."""

    name = "best-of-n"

    def step_texts(self, rollout: Rollout) -> list[str]:
        """What stands between ``Step 1:``, ``Step 2:``, ...; a "Step" inside is lower-cased."""
        pieces = (piece.strip() for piece in re.split(r"Step \d+:", rollout.response))
        return [piece.replace("Step", "step") for piece in pieces if piece]

    def scored_start(self, first_boundary: int) -> int:
        """The evaluator masks labels, which count tokens: token ``b_0`` is the first that counts."""
        return first_boundary

    def trim(self, text: str, *, is_whole: bool) -> str:
        """A trailing Llama-3 assistant header and end-of-turn are cut off an unfinished conversation."""
        if not is_whole:
            for tail in _LLAMA3_TAILS:
                text = text.removesuffix(tail)
        return text
