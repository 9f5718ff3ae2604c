"""Formats of step models whose steps are tokenised one by one, each followed by a separator's tokens.

A step is read at its separator's last token (:func:`~stepcredit.encoding.base.read_positions`).
"""

from __future__ import annotations

from itertools import accumulate, chain
from typing import TYPE_CHECKING

from stepcredit.encoding.base import EncodedSteps, check_length, plain_text
from stepcredit.steps import StepRule, step_contents, steps_of
from stepcredit.types import Encoded, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SkyworkPRMEncoding:
    r"""``bos + problem + "\n"``, then each step and ``"\n"``, where the value head is read.

    He et al. 2024 (Skywork-o1-Open-PRM). Blank lines are left out: they are no steps.

    Args:
        tokenizer: The model's.
        step_rule: How responses are cut into steps; the model was trained on lines.
        max_tokens: The model's context.
    """

    name = "skywork-prm"

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, step_rule: StepRule, *, max_tokens: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.step_rule = step_rule
        self.max_tokens = max_tokens

    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout.

        Raises:
            EncodingError: The sequence is too long.
        """
        start_of_text = self.tokenizer.bos_token or ""
        prompt_ids = self._ids(f"{start_of_text}{plain_text(rollout.prompt)}\n")
        separator = self._ids("\n")[-1:]
        pieces = [self._ids(text) + separator for text in step_contents(rollout, self.step_rule)]
        return _concatenated(rollout, prompt_ids, pieces, self.step_rule, self.max_tokens)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])


class StepwiseEncoding:
    """Prompt, then each step and a separator, tokenised apart, as TRL's former ``PRMTrainer`` did.

    Args:
        tokenizer: The model's.
        step_rule: How responses are cut into steps.
        max_tokens: The model's context.
        separator: TRL's ``step_separator``.
    """

    name = "trl-prm"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        step_rule: StepRule,
        *,
        max_tokens: int | None = None,
        separator: str = "\n",
    ) -> None:
        self.tokenizer = tokenizer
        self.step_rule = step_rule
        self.max_tokens = max_tokens
        self.separator = separator

    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout.

        Raises:
            EncodingError: The sequence is too long.
        """
        start_of_text = self.tokenizer.bos_token_id
        prompt_ids = [] if start_of_text is None else [int(start_of_text)]
        prompt_ids += self._ids(plain_text(rollout.prompt))
        separator = self._ids(self.separator)
        pieces = [self._ids(text) + separator for text in step_contents(rollout, self.step_rule)]
        return _concatenated(rollout, prompt_ids, pieces, self.step_rule, self.max_tokens)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def _concatenated(
    rollout: Rollout,
    prompt_ids: list[int],
    pieces: list[list[int]],
    rule: StepRule,
    max_tokens: int | None,
) -> EncodedSteps:
    token_ids = tuple(chain(prompt_ids, *pieces))
    check_length(token_ids, max_tokens, rollout.id)
    ends = tuple(accumulate(map(len, pieces)))
    return EncodedSteps(encoded=Encoded(token_ids, len(prompt_ids), ends), steps=steps_of(rollout, rule))
