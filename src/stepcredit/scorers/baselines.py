"""Baselines that read no model: chance, length, agreement among responses, and the truth itself.

They judge a response as a whole, so a score has one step: the response.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from stepcredit.errors import DataError, UserError
from stepcredit.generators.streams import stream_key, uniforms
from stepcredit.rewards import aggregate
from stepcredit.types import ResponseScore, Rollout, StepScore


class ResponseBaseline(ABC):
    """One number per response, from the rollout alone."""

    name: str

    @abstractmethod
    def reward(self, rollout: Rollout) -> float:
        """The response's reward."""

    def score_all(self, rollouts: Iterable[Rollout]) -> Iterator[ResponseScore]:
        """Score in input order. Tokens are the recorded ones where there are any, else words."""
        for rollout in rollouts:
            reward, response = self.reward(rollout), rollout.response
            token_ids = rollout.response_token_ids
            yield ResponseScore(
                id=rollout.id,
                prompt_id=rollout.prompt_id,
                reward=reward,
                steps=(StepScore(0, response, 0, len(response), reward, reward),),
                aggregates=aggregate(np.array([reward])),
                num_tokens=len(token_ids) if token_ids is not None else len(response.split()),
                scorer=self.name,
            )


class RandomBaseline(ResponseBaseline):
    """Uniform in (0, 1), from the seed and the response's prompt, index and id only.

    Args:
        seed: Another seed, another order.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.name = f"random, seed {seed}"

    def reward(self, rollout: Rollout) -> float:
        """The rollout's own random number."""
        key = stream_key(self.seed, rollout.prompt_id, rollout.index, rollout.id)
        return float(uniforms(np.array([key], np.uint64), np.zeros(1, np.int64))[0])


class LengthBaseline(ResponseBaseline):
    """The response's length in characters, or its negative.

    Args:
        longest: Whether long responses are the good ones.
    """

    def __init__(self, *, longest: bool) -> None:
        self.longest = longest
        self.name = "longest" if longest else "shortest"

    def reward(self, rollout: Rollout) -> float:
        """Characters, with a sign."""
        return float(len(rollout.response) if self.longest else -len(rollout.response))


class SelfConsistencyBaseline(ResponseBaseline):
    """Share of the prompt's responses that give the same answer (arXiv:2203.11171).

    A response without an answer has 0. The votes are all responses of the file: picking the best of n of
    them knows more than a vote among n does, which ``eval best-of-n`` reports as majority.

    Args:
        votes: Prompt to how many of its responses give each answer; ``None`` counts those without.
    """

    name = "self-consistency"

    def __init__(self, votes: Mapping[str, Mapping[str | None, int]]) -> None:
        self.votes = votes

    @classmethod
    def count(cls, rollouts: Iterable[Rollout]) -> SelfConsistencyBaseline:
        """Count the votes of all responses.

        Raises:
            DataError: None was graded, so that none has an answer.
        """
        votes: dict[str, Counter[str | None]] = {}
        graded = False
        for rollout in rollouts:
            graded = graded or rollout.correct is not None or rollout.vote is not None
            votes.setdefault(rollout.prompt_id, Counter())[rollout.vote] += 1
        if votes and not graded:
            raise DataError(
                "no response has an answer",
                where="--by self-consistency",
                hint="grade with: stepcredit grade",
            )
        return cls(votes)

    def reward(self, rollout: Rollout) -> float:
        """The answer's share."""
        if rollout.vote is None:
            return 0.0
        votes = self.votes[rollout.prompt_id]
        return votes[rollout.vote] / sum(votes.values())


class OracleBaseline(ResponseBaseline):
    """1 for right and 0 for wrong responses: the most that picking can reach."""

    name = "oracle"

    def reward(self, rollout: Rollout) -> float:
        """The verdict.

        Raises:
            DataError: The rollout is not graded.
        """
        if rollout.correct is None:
            raise DataError("is not graded", where=rollout.id, hint="grade it with: stepcredit grade")
        return float(rollout.correct)


BASELINES = ("random", "shortest", "longest", "self-consistency", "oracle")


def make_baseline(name: str, rollouts: Callable[[], Iterable[Rollout]], *, seed: int = 0) -> ResponseBaseline:
    """The baseline called ``name``.

    Args:
        name: One of :data:`BASELINES`.
        rollouts: Reads what will be scored, for baselines that must see all of it first.
        seed: Of ``random``.

    Raises:
        UserError: There is no such baseline.
    """
    if name == "random":
        return RandomBaseline(seed)
    if name in ("shortest", "longest"):
        return LengthBaseline(longest=name == "longest")
    if name == "self-consistency":
        return SelfConsistencyBaseline.count(rollouts())
    if name == "oracle":
        return OracleBaseline()
    raise UserError(f"there is no baseline {name!r}", where="--by", hint=f"use {', '.join(BASELINES)}")
