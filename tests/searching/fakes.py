"""A policy that writes digits and a scorer that knows which are good: searches whose best answer is known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stepcredit.generators.streams import stream_key
from stepcredit.rewards import aggregate
from stepcredit.steps import StepRule, split
from stepcredit.types import (
    GenerationFailure,
    GenerationRequest,
    Prompt,
    PromptText,
    ResponseScore,
    Rollout,
    Sampling,
    StepScore,
)

LINES = 4
"""Lines of a whole response, each a digit."""


class DigitPolicy:
    """Writes :data:`LINES` lines of one random digit; a token is a character, the last line's end the turn's.

    Args:
        broken: Problems that cannot be drawn.
    """

    name = "digits"

    def __init__(self, broken: Iterable[str] = ()) -> None:
        self.broken = set(broken)
        self.asked: list[GenerationRequest] = []

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        for request in requests:
            self.asked.append(request)
            if request.prompt.id in self.broken:
                yield GenerationFailure(request.prompt.id, request.indices, "out of order")
                continue
            for index in request.indices:
                yield self._rollout(request, index)

    def _rollout(self, request: GenerationRequest, index: int) -> Rollout:
        from stepcredit.generators.records import make_rollout

        sampling, prefix = request.sampling, request.response_prefix
        key = stream_key(sampling.seed, request.prompt.id, index, prefix)
        digits = [str(key // 10**place % 10) for place in range(LINES)]
        if sampling.temperature == 0:
            digits = ["5"] * LINES
        lines = prefix.count("\n")
        text = "".join(f"{digit}\n" for digit in digits[: LINES - lines])
        if sampling.keep_stop and len(text) > 2:
            text, ended = text[:2], False
        else:
            ended = True
        cut = len(text) > sampling.max_new_tokens
        text = text[: sampling.max_new_tokens]
        # The turn's end is a token of its own, and no text.
        return make_rollout(
            request,
            index,
            text=text.removesuffix("\n") if ended and not cut else text,
            reason="length" if cut else "stop",
            policy=self.name,
            sampling={},
            num_generated_tokens=len(text),
        )


class DigitScorer:
    """A line's reward is its digit.

    Args:
        reward: Of a line's text, in the place of that.
        unreadable: Responses that start so cannot be scored.
    """

    name = "digits"

    def __init__(
        self, reward: Callable[[str], float] = lambda text: float(text or 0), unreadable: str = "no"
    ) -> None:
        self.reward, self.unreadable = reward, unreadable
        self.num_scored = 0

    @contextlib.contextmanager
    def session(self) -> Iterator[DigitScorer]:
        yield self

    def score_all(
        self, rollouts: Iterable[Rollout], *, on_skip: Callable[[Any], None] | None = None
    ) -> Iterator[ResponseScore]:
        from stepcredit.encoding import EncodingError

        for rollout in rollouts:
            if rollout.response.startswith(self.unreadable):
                assert on_skip is not None
                on_skip(EncodingError("not-encodable", "it is not readable", where=rollout.id))
                continue
            yield self._score(rollout)

    def score(self, prompt: PromptText, response: str, *, finished: bool = True) -> ResponseScore:
        return self._score(Rollout(id="r", prompt_id="p", prompt=prompt, response=response))

    def _score(self, rollout: Rollout) -> ResponseScore:
        import numpy as np

        self.num_scored += 1
        steps = split(rollout.response, StepRule("newline"))
        rewards = np.asarray([self.reward(step.text.strip()) for step in steps])
        values = rewards.cumsum()
        return ResponseScore(
            id=rollout.id,
            prompt_id=rollout.prompt_id,
            reward=float(values[-1]),
            steps=tuple(
                StepScore(step.index, step.text, step.start, step.end, float(reward), float(value))
                for step, reward, value in zip(steps, rewards, values, strict=True)
            ),
            aggregates=aggregate(rewards),
            num_tokens=len(rollout.response),
            scorer=self.name,
        )


def problems(count: int = 3) -> list[Prompt]:
    return [Prompt(id=f"p{number}", prompt=f"question {number}", answer="9") for number in range(count)]


SAMPLING = Sampling(max_new_tokens=100)
