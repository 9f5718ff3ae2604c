"""Formats of step models whose steps are tokenised one by one, each followed by a separator's tokens.

A step is read at its separator's last token (:func:`~stepcredit.encoding.base.read_positions`).
"""

from __future__ import annotations

from itertools import accumulate, chain
from typing import TYPE_CHECKING

from stepcredit.conversations import plain_text
from stepcredit.encoding.base import EncodedSteps, StepEncoding, check_length
from stepcredit.steps import StepRule, step_contents, steps_of
from stepcredit.types import Encoded, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SkyworkPRMEncoding(StepEncoding):
    r"""``bos + problem + "\n"``, then each step and ``"\n"``, where the value head is read.

    He et al. 2024 (Skywork-o1-Open-PRM). Blank lines are left out: they are no steps.
    """

    name = "skywork-prm"

    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout."""
        start_of_text = self.tokenizer.bos_token or ""
        prompt_ids = self._with_special(f"{start_of_text}{plain_text(rollout.prompt)}\n")
        separator = self._with_special("\n")[-1:]
        pieces = [self._with_special(text) + separator for text in step_contents(rollout, self.step_rule)]
        return _concatenated(rollout, prompt_ids, pieces, self)

    def _with_special(self, text: str) -> list[int]:
        # The model card calls the tokenizer with its defaults, whatever they add.
        return list(self.tokenizer(text)["input_ids"])


class StepwiseEncoding(StepEncoding):
    """Prompt, then each step and a separator, tokenised apart, as TRL's former ``PRMTrainer`` did.

    Args:
        separator: TRL's ``step_separator``.
    """

    name = "token-classifier"
    separator: str

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        step_rule: StepRule,
        max_tokens: int | None = None,
        *,
        separator: str = "\n",
    ) -> None:
        super().__init__(tokenizer, step_rule, max_tokens)
        self.separator = separator

    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout."""
        start_of_text = self.tokenizer.bos_token_id
        prompt_ids = [] if start_of_text is None else [int(start_of_text)]
        prompt_ids += self.ids(plain_text(rollout.prompt))
        separator = self.ids(self.separator)
        pieces = [self.ids(text) + separator for text in step_contents(rollout, self.step_rule)]
        return _concatenated(rollout, prompt_ids, pieces, self)


def _concatenated(
    rollout: Rollout, prompt_ids: list[int], pieces: list[list[int]], encoding: StepEncoding
) -> EncodedSteps:
    token_ids = tuple(chain(prompt_ids, *pieces))
    check_length(token_ids, encoding.max_tokens, rollout.id)
    encoded = Encoded(token_ids, len(prompt_ids), tuple(accumulate(map(len, pieces))))
    return EncodedSteps(encoded=encoded, steps=steps_of(rollout, encoding.step_rule))
