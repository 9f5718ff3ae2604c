"""What all scorers share: a bounded window, distinct responses once, input order, and the record given."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from stepcredit.data import rollout_from_json
from stepcredit.encoding import EncodedSteps, Encoding, EncodingError
from stepcredit.errors import DataError
from stepcredit.logprobs.checking import TokenError
from stepcredit.rewards import aggregate, step_rewards
from stepcredit.runs import Ledger, warn
from stepcredit.scorers.settings import DEFAULT_WINDOW
from stepcredit.types import LARGEST_NUMBER, PromptText, ResponseScore, Rollout, StepScore
from stepcredit.wording import agree, quantity

OnSkip = Callable[[EncodingError], None]
"""Called with what is wrong with each rollout that cannot be encoded."""

Response = Rollout | Mapping[str, Any] | tuple[PromptText, str]
"""A response to score: a rollout, its row as a file holds it, or prompt and response."""


def as_rollout(response: Response, position: int = 0) -> Rollout:
    """A response in any of its forms as a rollout.

    Args:
        response: One without an id gets one of its position and content.
        position: Where it stands among others, from 0.

    Raises:
        DataError: It is no response.
    """
    where = f"response {position + 1}"
    if isinstance(response, Rollout):
        return _checked(response, response.id)
    if isinstance(response, Mapping):
        return _checked(rollout_from_json(response, where, position), where)
    if isinstance(response, tuple | list) and len(response) == 2:
        row = {"prompt": response[0], "response": response[1]}
        return _checked(rollout_from_json(row, where, position), where)
    raise DataError(
        f"is neither a Rollout, a dict nor a (prompt, response) pair but a {type(response).__name__}",
        where=where,
        hint="score a list of them, or one response with score(prompt, response)",
    )


def _checked(rollout: Rollout, where: str) -> Rollout:
    """A rollout whose texts a tokenizer can read; those of files are checked where they are read."""
    parts = [rollout.prompt, rollout.response, rollout.turns, rollout.extras.get("tools")]
    try:
        json.dumps(parts, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise DataError("holds half of a surrogate pair, which is not valid text", where=where) from error
    return rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a model says of one encoded response.

    Attributes:
        rewards: One per step.
        values: One per step; see :class:`~stepcredit.types.StepScore`.
        aggregates: Of the step rewards, by name.
        token_rewards: One per scored token, where the model gives such.
    """

    reward: float
    rewards: NDArray[np.float64]
    values: NDArray[np.float64]
    aggregates: Mapping[str, float]
    token_rewards: NDArray[np.float64] | None = None


def windows(rollouts: Iterable[Rollout], size: int) -> Iterator[tuple[int, list[Rollout]]]:
    """Yield number and rollouts of one window after another; the last one may be smaller."""
    remaining, number = iter(rollouts), 0
    while window := list(islice(remaining, size)):
        yield number, window
        number += 1


def judge_tokens(encoded: EncodedSteps, values: NDArray[np.floating], scale: float) -> Judgement:
    """A response by a value of each of its tokens: steps and response have the sums, times a scale."""
    steps = step_rewards(values, encoded.encoded.step_ends, scale)
    return Judgement(
        reward=float(steps.values[-1]),
        rewards=steps.rewards,
        values=steps.values,
        aggregates=aggregate(steps.rewards, encoded.encoded.num_scored),
        token_rewards=scale * np.asarray(values, np.float64),
    )


class ResponseScorer(ABC):
    """A :class:`~stepcredit.types.Scorer` that takes responses in several forms and says which are empty.

    Args:
        with_tokens: Whether scores hold token rewards, where the model gives such.

    Attributes:
        ledger: Tokens of what was scored, prompts included, as if each sequence were computed whole by
            each model.
        window: Most rollouts held in memory.
        counts: What became of other things than rollouts, by name.
        encoding: How responses become tokens; ``None`` where that is not done here.
    """

    encoding: Encoding | None = None
    window = DEFAULT_WINDOW

    def __init__(self, *, with_tokens: bool = False) -> None:
        self.with_tokens = with_tokens
        self.ledger = Ledger()
        self.counts: Counter[str] = Counter()
        self._num_empty = 0
        self._said_empty = False

    @property
    @abstractmethod
    def name(self) -> str:
        """What produced the scores, written to ``ResponseScore.scorer``."""

    @abstractmethod
    def score_rollouts(self, rollouts: Iterator[Rollout], on_skip: OnSkip | None) -> Iterator[ResponseScore]:
        """As :meth:`score_all`."""

    def score_all(
        self, rollouts: Iterable[Response], *, on_skip: OnSkip | None = None
    ) -> Iterator[ResponseScore]:
        """Score in input order; equal responses to one prompt are computed once.

        Args:
            rollouts: Read as they are needed: rollouts, their rows as dicts, or (prompt, response) pairs.
            on_skip: Called with what cannot be encoded, which is then left out.

        Raises:
            DataError: What is given is not responses.
            EncodingError: A rollout cannot be encoded and ``on_skip`` is not given.
        """
        if not isinstance(rollouts, Iterable):
            raise DataError(
                f"takes rollouts, dicts or (prompt, response) pairs, not {type(rollouts).__name__}",
                where="score_all",
                hint="pass a list of them",
            )
        return self._noting_empty(self.score_rollouts(map(as_rollout, rollouts, count()), on_skip))

    def score_pieces(
        self,
        rollouts: Iterable[Rollout],
        *,
        done: Container[int] = frozenset(),
        on_skip: OnSkip | None = None,
    ) -> Iterator[tuple[int, Iterator[ResponseScore]]]:
        """Yield number and scores of each window, in input order.

        What is computed together, and so the last digits of a score, depends on the window. A run that goes
        on from an earlier one names the windows that are done, and scores the others as they would have been.

        Args:
            on_skip: As in :meth:`score_all`.
        """
        for number, window in windows(rollouts, self.window):
            if number not in done:
                yield number, self._counting_empty(self.score_rollouts(iter(window), on_skip))
        self._say_empty()

    def _noting_empty(self, scores: Iterator[ResponseScore]) -> Iterator[ResponseScore]:
        yield from self._counting_empty(scores)
        self._say_empty()

    def _counting_empty(self, scores: Iterator[ResponseScore]) -> Iterator[ResponseScore]:
        for score in scores:
            self._num_empty += score.is_empty
            yield score

    def _say_empty(self) -> None:
        # A scorer that search asks again and again says it once.
        if self._num_empty and not self._said_empty:
            self._said_empty = True
            empty, verb = quantity(self._num_empty, "response"), agree(self._num_empty, "is", "are")
            warn(
                f"{empty} {verb} empty: only the end-of-turn token is scored, whose reward may be the "
                "highest of all"
            )

    @contextlib.contextmanager
    def session(self) -> Iterator[Self]:
        """A scorer for responses that grow; this one reads each of them whole, every time."""
        yield self

    def score(self, prompt: PromptText, response: str, *, finished: bool = True) -> ResponseScore:
        """Score one response.

        Args:
            prompt: A string, or a conversation that ends before the response.
            finished: Whether the assistant ended its turn there, so that the end-of-turn is scored too. Off
                for the beginning of a response, and for one that was cut off.

        Raises:
            DataError: An argument is not what it must be.
            EncodingError: It cannot be encoded.
        """
        row = {
            "id": "response",
            "prompt_id": "prompt",
            "prompt": list(prompt) if isinstance(prompt, tuple) else prompt,
            "response": response,
            "finish_reason": None if finished else "length",
        }
        (score,) = self.score_all([rollout_from_json(row, "score")])
        return score


class Shared(TypedDict, total=False):
    """What every windowed scorer may be given by name.

    Attributes:
        label: Names the model in the scores.
        window: Most rollouts held in memory; it changes no value.
        with_tokens: Whether scores hold token rewards, where the model gives such.
        num_parameters: Of the model, for the ledger.
    """

    label: str
    window: int
    with_tokens: bool
    num_parameters: int


class WindowedScorer(ResponseScorer):
    """Encodes and judges a window of rollouts at a time, distinct responses once.

    Args:
        encoding: The format that the model was made for.
        **shared: See :class:`Shared`.
    """

    encoding: Encoding

    def __init__(self, encoding: Encoding, **shared: Unpack[Shared]) -> None:
        super().__init__(with_tokens=shared.get("with_tokens", False))
        self.encoding = encoding
        self.label = shared.get("label", "model")
        self.window = shared.get("window", DEFAULT_WINDOW)
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")
        self.ledger.model_parameters = shared.get("num_parameters", 0)

    @property
    def num_models(self) -> int:
        """How many models read each sequence."""
        return 1

    @abstractmethod
    def judge(self, encoded: Sequence[EncodedSteps]) -> list[Judgement]:
        """Judge distinct encoded responses, those of one prompt next to each other, in input order."""

    def score_rollouts(self, rollouts: Iterator[Rollout], on_skip: OnSkip | None) -> Iterator[ResponseScore]:
        """One window after another."""
        for _, window in windows(rollouts, self.window):
            yield from self._score_window(window, on_skip)

    def _score_window(self, rollouts: Sequence[Rollout], on_skip: OnSkip | None) -> Iterator[ResponseScore]:
        kept: list[tuple[Rollout, EncodedSteps]] = []
        groups: dict[str, dict[EncodedSteps, None]] = {}
        for rollout in rollouts:
            try:
                encoded = self._encode(rollout)
            except EncodingError as error:
                if on_skip is None:
                    raise
                on_skip(error)
                continue
            kept.append((rollout, encoded))
            groups.setdefault(rollout.prompt_id, {})[encoded] = None
        distinct = list(dict.fromkeys(encoded for group in groups.values() for encoded in group))
        num_tokens = sum(len(encoded.encoded.token_ids) for encoded in distinct)
        self.ledger.scored_tokens += self.num_models * num_tokens
        try:
            judged = dict(zip(distinct, self.judge(distinct), strict=True))
        except TokenError as error:
            row = next(rollout.id for rollout, encoded in kept if encoded.encoded == error.item)
            raise DataError(error.problem, where=row, hint=error.hint) from error
        scores: dict[EncodedSteps, ResponseScore] = {}
        for rollout, encoded in kept:
            if encoded not in scores:
                scores[encoded] = self._to_score(rollout, encoded, judged[encoded])
            yield replace(
                scores[encoded],
                id=rollout.id,
                prompt_id=rollout.prompt_id,
                aggregates=dict(scores[encoded].aggregates),
            )

    def _encode(self, rollout: Rollout) -> EncodedSteps:
        try:
            return self.encoding.encode(rollout)
        except EncodingError:
            raise
        except DataError as error:
            raise EncodingError("not-encodable", error.problem, where=rollout.id, hint=error.hint) from error

    def _to_score(self, rollout: Rollout, encoded: EncodedSteps, judged: Judgement) -> ResponseScore:
        numbers = np.concatenate(
            [[judged.reward], judged.rewards, judged.values, [*judged.aggregates.values()]]
        )
        usable = np.abs(numbers) <= LARGEST_NUMBER  # NaN is not
        if not usable.all():
            raise DataError(
                f"the model gives a reward of {numbers[~usable][0]}",
                where=rollout.id,
                hint="check weights and --beta, or score with --dtype float32",
            )
        token_rewards = judged.token_rewards if self.with_tokens else None
        return ResponseScore(
            id=rollout.id,
            prompt_id=rollout.prompt_id,
            reward=judged.reward,
            steps=tuple(
                StepScore(step.index, step.text, step.start, step.end, float(reward), float(value))
                for step, reward, value in zip(encoded.steps, judged.rewards, judged.values, strict=True)
            ),
            aggregates=dict(judged.aggregates),
            num_tokens=encoded.encoded.num_scored,
            scorer=self.name,
            scored_text=encoded.scored_text,
            token_rewards=None if token_rewards is None else tuple(map(float, token_rewards)),
            token_ends=None if token_rewards is None else encoded.token_ends,
        )
