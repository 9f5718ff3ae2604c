"""What every encoding format gives: tokens with the steps they belong to, or a typed error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from stepcredit.encoding.template import check_tokenizer
from stepcredit.errors import DataError, UserError
from stepcredit.steps import StepRule
from stepcredit.types import Encoded, Rollout, Step

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EncodingProblem = Literal[
    "too-long",
    "prompt-not-prefix",
    "nothing-to-score",
    "tokens-do-not-match",
    "tag-in-response",
    "not-encodable",
    "no-verdicts",
]


LEAVE_OUT = "pass --skip-invalid to leave such rows out"


class EncodingError(DataError):
    """A response that cannot be encoded exactly; callers may skip and count it by its ``kind``.

    Args:
        kind: Which problem it is: ``too-long`` (for the model's context), ``prompt-not-prefix`` (the
            prompt's last token merges with the response's first), ``nothing-to-score`` (no token),
            ``tokens-do-not-match`` (the recorded token ids are not those of the response's text),
            ``tag-in-response`` (the text holds the tag at which the model gives its scores),
            ``not-encodable`` (the chat template refuses it, or its listed steps are not its own),
            ``no-verdicts`` (a generative judge gave none, or not one for each step).
    """

    def __init__(
        self, kind: EncodingProblem, problem: str, *, where: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(problem, where=where, hint=hint)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedSteps:
    """A rollout ready to be scored.

    Attributes:
        encoded: Token ids, where scoring starts, and the steps' token ends.
        steps: The steps; they tile the scored text.
        token_ends: Character offset in the scored text at which the next token starts, for each scored
            token: non-decreasing, the last is the text's length. Empty for formats whose models give no
            token rewards.
        scored_text: The rewritten response that offsets refer to, where the format rewrites it.
    """

    encoded: Encoded
    steps: tuple[Step, ...]
    token_ends: tuple[int, ...] = ()
    scored_text: str | None = None

    def __hash__(self) -> int:
        """By its tokens alone, which tell nearly all apart; those of all steps would take far longer."""
        return hash((self.encoded.token_ids, self.encoded.scored_start))


class Encoding(Protocol):
    """A format: how a prompt and its response become tokens, and which of them are scored."""

    @property
    def name(self) -> str:
        """The convention's name, e.g. ``clean``."""
        ...

    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout.

        Raises:
            EncodingError: It cannot be encoded exactly.
        """
        ...


class StepEncoding(ABC):
    """What the formats of step models share.

    Args:
        max_tokens: The model's context; longer sequences are refused.

    Raises:
        UserError: The step rule groups steps by tokens, and the format does not.
        CheckpointError: The format needs a chat template, and the tokenizer has none.
    """

    name: str
    separator: str | None = None
    """What is put after each step, where the format has a choice."""
    groups_steps = False
    has_template = False
    """Whether it writes conversations by the tokenizer's chat template."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, step_rule: StepRule, max_tokens: int | None = None
    ) -> None:
        if self.has_template:
            check_tokenizer(tokenizer)
        if step_rule.max_tokens is not None and not self.groups_steps:
            raise UserError(
                f"the format {self.name} does not merge steps",
                where="--max-step-tokens",
                hint="leave it out, or use an implicit reward model, a value head or a token head",
            )
        self.tokenizer = tokenizer
        self.step_rule = step_rule
        self.max_tokens = max_tokens

    @abstractmethod
    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout.

        Raises:
            EncodingError: It cannot be encoded exactly.
        """

    def ids(self, text: str) -> list[int]:
        """Tokens of a text, without those that a tokenizer puts around one."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def check_length(token_ids: Sequence[int], max_tokens: int | None, rollout_id: str) -> None:
    """Refuse a sequence that is longer than the model's context.

    Raises:
        EncodingError: ``too-long``.
    """
    if max_tokens is not None and len(token_ids) > max_tokens:
        raise EncodingError(
            "too-long",
            f"prompt and response have {len(token_ids)} tokens, more than the context of {max_tokens}",
            where=rollout_id,
            hint=f"{LEAVE_OUT}, or use a model with a longer context",
        )


def merging(response: str, rollout_id: str) -> EncodingError:
    """The error of a response whose first token would be one with the prompt's last."""
    return EncodingError(
        "prompt-not-prefix",
        f"the response's start {response[:12]!r} merges with the prompt's last token",
        where=rollout_id,
        hint=f"pass --boundary apart, record response_token_ids when sampling, or {LEAVE_OUT}",
    )


def place_in(rendered: str, written: str, rollout_id: str) -> int:
    """The character at which a response, as it should be scored, starts in its conversation.

    Raises:
        EncodingError: The chat template wrote something else, as those do that leave out thinking.
    """
    place = rendered.rfind(written.strip())
    if place < 0:
        raise EncodingError(
            "not-encodable",
            "the chat template leaves out or changes a part of the response (its thinking?)",
            where=rollout_id,
            hint=f"score what follows the thinking, or {LEAVE_OUT}",
        )
    return place


def read_positions(encoded: Encoded) -> tuple[int, ...]:
    """Index in ``token_ids`` of each step's last token: where step models give the step's score.

    A step without a token is read where the step before it ends.
    """
    if not encoded.skipped:
        return tuple(encoded.scored_start + end - 1 for end in encoded.step_ends)
    places = [encoded.scored_start - 1, *encoded.scored_places]
    return tuple(places[end] for end in encoded.step_ends)
