"""One format a family: (prompt, steps) -> token ids and scored positions; trainers and scorers share it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepcredit.encoding.base import EncodedSteps, Encoding, EncodingError, read_positions
from stepcredit.encoding.chat import ChatEncoding
from stepcredit.encoding.concatenated import SkyworkPRMEncoding, StepwiseEncoding
from stepcredit.encoding.conversation import ConversationEncoding
from stepcredit.encoding.published import BestOfNEncoding, ProcessBenchEncoding
from stepcredit.encoding.tagged import MathShepherdEncoding, QwenPRMEncoding, RLHFlowEncoding
from stepcredit.errors import UserError
from stepcredit.steps import StepRule

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONVENTIONS = ("clean", "processbench", "best-of-n")
"""How implicit rewards are divided among steps: our way, and the two published evaluators'."""


def make_encoding(
    convention: str,
    tokenizer: PreTrainedTokenizerBase,
    step_rule: StepRule,
    *,
    max_tokens: int | None = None,
    tokenizer_hash: str | None = None,
) -> Encoding:
    """The encoding of one of :data:`CONVENTIONS`.

    Raises:
        UserError: There is no such convention.
    """
    if convention == "clean":
        return ChatEncoding(tokenizer, step_rule, max_tokens=max_tokens, tokenizer_hash=tokenizer_hash)
    if convention == "processbench":
        return ProcessBenchEncoding(tokenizer, step_rule, max_tokens)
    if convention == "best-of-n":
        return BestOfNEncoding(tokenizer, step_rule, max_tokens)
    raise UserError(
        f"no convention {convention!r}", where="--convention", hint=f"use {', '.join(CONVENTIONS)}"
    )


__all__ = [
    "CONVENTIONS",
    "BestOfNEncoding",
    "ChatEncoding",
    "ConversationEncoding",
    "EncodedSteps",
    "Encoding",
    "EncodingError",
    "MathShepherdEncoding",
    "ProcessBenchEncoding",
    "QwenPRMEncoding",
    "RLHFlowEncoding",
    "SkyworkPRMEncoding",
    "StepwiseEncoding",
    "make_encoding",
    "read_positions",
]
