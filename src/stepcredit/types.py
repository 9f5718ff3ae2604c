"""The records that packages exchange, and the protocols between them; torch is not imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Protocol, TypedDict

from stepcredit.tints import ShownSteps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


LARGEST_NUMBER = 1e100
"""Rewards, values and aggregates lie between this and its negative, so that no statistic of them overflows:
sums of squares of millions of them, and products of two such sums' roots, are numbers that a float holds."""


class Message(TypedDict):
    """One chat turn; its content is text, a list of text parts, or null, as where it only calls tools."""

    role: str
    content: str | Sequence[Mapping[str, Any]] | None
    name: NotRequired[str]
    reasoning_content: NotRequired[str | None]
    tool_calls: NotRequired[Sequence[Mapping[str, Any]] | None]
    tool_call_id: NotRequired[str | None]


PromptText = str | Sequence[Message]
"""A single user turn as a string, or a conversation that ends before the assistant's turn, or within it."""


class FormattedPrompt(str):
    """A prompt that is already in the model's chat format, as only ``ChatEncoding`` takes it."""

    __slots__ = ()


FinishReason = Literal["stop", "length"]
"""``stop``: the policy ended its turn. ``length``: it was cut off, so no end-of-turn is scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A problem to solve.

    Attributes:
        id: Unique in its file.
        answer: Reference answer, if known.
        extras: Any other fields of the input row, kept untouched.
    """

    id: str
    prompt: PromptText
    answer: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn from a policy.

    Attributes:
        temperature: Divides the logits; 0 means greedy.
        top_p: Smallest set of tokens whose probability reaches this share; 1 is off.
        top_k: Number of most likely tokens kept; 0 is off.
        min_p: Tokens below this share of the likeliest token's probability are dropped; 0 is off.
        max_new_tokens: Tokens after which a response is cut off (``finish_reason`` ``length``).
        stop: Strings that end a response; the stop string itself is not part of the response.
        keep_stop: Whether it is, with the whole token that completes it. Then the response is not over: it
            can be continued from there, so this is how a step is drawn.
        seed: Sample ``i`` of a prompt draws from a random stream of (seed, prompt id, ``i``, response
            prefix) only.
        log_probs: How many candidates of each token are asked for, with their log-probabilities, of a server
            that gives them; 0 is none.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    seed: int = 0
    log_probs: int = 0


@dataclass(frozen=True, slots=True)
class StepLabel:
    """A label for the step that ends at character ``end`` of the response.

    Attributes:
        end: Character offset in the response, exclusive.
        label: 1 for right, 0 for wrong, between for soft labels.
    """

    end: int
    label: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One response to one prompt.

    Attributes:
        id: Unique in its file.
        prompt_id: Groups the responses of one prompt.
        index: Which sample of the prompt this is, from 0.
        prompt: As in :class:`Prompt`.
        response: The assistant's text, without end-of-turn; its turns' texts, joined by blank lines.
        turns: What follows the prompt where that is more than one text, tools' and users' turns included.
        answer: Reference answer, if known.
        correct: Whether the final answer is right; ``None`` is not graded.
        prediction: The answer extracted from the response; ``None`` if there is none.
        finish_reason: ``length`` when the response was cut off; then its end-of-turn is not scored.
        policy: Who wrote the response.
        sampling: How it was drawn, as plain JSON.
        response_token_ids: Tokens as drawn (end-of-turn included), valid only for ``tokenizer``.
        tokenizer: Hash of the tokenizer that ``response_token_ids`` belong to.
        step_labels: Labels of steps, if any, in order of ``end``.
        extras: Any other fields of the input row, kept untouched.
    """

    id: str
    prompt_id: str
    prompt: PromptText
    response: str
    index: int = 0
    answer: str | None = None
    correct: bool | None = None
    prediction: str | None = None
    finish_reason: FinishReason | None = None
    policy: str | None = None
    sampling: Mapping[str, Any] | None = None
    response_token_ids: tuple[int, ...] | None = None
    tokenizer: str | None = None
    step_labels: tuple[StepLabel, ...] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[Message, ...] | None = None

    @property
    def vote(self) -> str | None:
        """The prediction as votes compare it, without blanks around it; ``None`` where nothing is left."""
        return (self.prediction or "").strip() or None


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of a response: ``response[start:end] == text``; the steps of a response tile it.

    Attributes:
        index: From 0.
        text: The step with the separator that ends it.
        start: Character offset of its first character.
        end: Character offset one past its last character.
    """

    index: int
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class StepScore(Step):
    """A step and what it is worth.

    Attributes:
        reward: Process reward of the step. Implicit: beta times the step's sum of log-ratios (nats).
        value: Implicit: the cumulative reward up to the end of the step; other models: the step's score.
    """

    reward: float
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseScore(ShownSteps):
    """What a scorer says of one response.

    Attributes:
        reward: Response-level reward (beta included for implicit scorers).
        steps: In order; they tile the scored text.
        aggregates: Aggregate name to value, over the step rewards.
        num_tokens: Number of scored tokens.
        scorer: What produced it: kind, model, convention and, where the reward is an aggregate, which.
        scored_text: The rewritten response that offsets refer to, where a convention rewrites it.
        token_rewards: One reward per scored token, on request.
        token_ends: Character offset one past each scored token, with ``token_rewards``.
        judge_tokens: What a generative judge read and wrote to score it; score files do not hold it.
    """

    id: str
    prompt_id: str
    reward: float
    steps: tuple[StepScore, ...]
    aggregates: Mapping[str, float]
    num_tokens: int
    scorer: str
    scored_text: str | None = None
    token_rewards: tuple[float, ...] | None = None
    token_ends: tuple[int, ...] | None = None
    judge_tokens: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether the response has no text, so that only the end of its turn was scored."""
        return not any(step.text.strip() for step in self.steps)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt and its response as one token sequence, with the part that is scored.

    Attributes:
        token_ids: The whole sequence, prompt first.
        scored_start: Index of the first scored token, at least 1; all after it are, but ``skipped`` ones.
        step_ends: For each step, one past its last token, counted in scored tokens; non-decreasing (a step in
            which no token starts has none), the last is ``num_scored`` unless the convention says otherwise.
        skipped: Half-open ranges of indices between scored tokens, in order: turns of tools and users.
    """

    token_ids: tuple[int, ...]
    scored_start: int
    step_ends: tuple[int, ...] = ()
    skipped: tuple[tuple[int, int], ...] = ()

    @property
    def num_scored(self) -> int:
        """Number of scored tokens."""
        return len(self.token_ids) - self.scored_start - sum(end - start for start, end in self.skipped)

    @property
    def scored_places(self) -> range | list[int]:
        """Index in ``token_ids`` of each scored token."""
        places = range(self.scored_start, len(self.token_ids))
        if not self.skipped:
            return places
        unscored = {place for start, end in self.skipped for place in range(start, end)}
        return [place for place in places if place not in unscored]

    @property
    def scored_ids(self) -> tuple[int, ...]:
        """The scored tokens."""
        return tuple(self.token_ids[place] for place in self.scored_places)


class TokenLogProbs(Protocol):
    """Log-probabilities of scored tokens under one model: a policy or a reference."""

    @property
    def fingerprint(self) -> str:
        """Names everything that the numbers depend on: weights, dtype, attention, code version."""

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        """Natural-log probabilities of each sequence's scored tokens, in input order.

        Returns:
            One array of shape ``(num_scored,)`` for each sequence, in nats.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """Ask for samples of one prompt, optionally continuing the start of a response.

    Attributes:
        indices: Which samples to draw; sample ``i`` is the same whichever others are asked for.
        response_prefix: Text that every response starts with; it is part of the returned response.
        response_prefix_ids: Tokens of the prefix as they were drawn, where this generator's tokenizer made
            them. Text can be cut into tokens in several ways, so they keep a continuation exact.
    """

    prompt: Prompt
    indices: tuple[int, ...]
    sampling: Sampling
    response_prefix: str = ""
    response_prefix_ids: tuple[int, ...] | None = None

    @property
    def num_samples(self) -> int:
        """How many samples are asked for."""
        return len(self.indices)


@dataclass(frozen=True, slots=True)
class GenerationFailure:
    """A request that could not be answered, with the reason; the run continues."""

    prompt_id: str
    indices: tuple[int, ...]
    reason: str


class Generator(Protocol):
    """Draws responses from a policy."""

    @property
    def name(self) -> str:
        """The policy's name, written to ``Rollout.policy``."""

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        """Yield rollouts as they finish, in any order, one for each (prompt, index) asked for."""


class Scorer(Protocol):
    """Gives step and response rewards."""

    @property
    def name(self) -> str:
        """Written to ``ResponseScore.scorer``."""

    def score_all(
        self, rollouts: Iterable[Rollout], *, on_skip: Callable[[Any], None] | None = None
    ) -> Iterator[ResponseScore]:
        """Score in input order with a bounded window in memory; one prompt's responses share work.

        Args:
            on_skip: Called with the error of each rollout that cannot be scored, which is then left out;
                without it the error is raised.
        """

    def session(self) -> AbstractContextManager[Scorer]:
        """A scorer for responses that grow: it remembers what it has read until the ``with`` ends."""

    def score(self, prompt: PromptText, response: str, *, finished: bool = True) -> ResponseScore:
        """Score one response; one that is not finished has no end-of-turn."""
