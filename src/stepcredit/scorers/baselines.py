"""Baselines that read no model: chance, length, agreement among responses, and the truth itself.

They judge a response as a whole, so a score has one step: the response.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from stepcredit.errors import DataError, UserError
from stepcredit.generators.streams import stream_key, uniforms
from stepcredit.rewards import aggregate
from stepcredit.types import ResponseScore, Rollout, StepScore


@dataclass(frozen=True, slots=True)
class Baseline:
    """One number per response, from the rollout alone."""

    name: str
    reward: Callable[[Rollout], float]

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


def random_reward(rollout: Rollout, seed: int) -> float:
    """Uniform in (0, 1), from the seed and the response's prompt, index and id only."""
    key = stream_key(seed, rollout.prompt_id, rollout.index, rollout.id)
    return float(uniforms(np.array([key], np.uint64), np.zeros(1, np.int64))[0])


def agreement(rollouts: Iterable[Rollout]) -> Callable[[Rollout], float]:
    """Gives the share of a prompt's responses that give the same answer (arXiv:2203.11171).

    A response without an answer has 0. The votes are all of ``rollouts``: picking the best of n of
    them knows more than a vote among n does, which ``eval best-of-n`` reports as majority.

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

    def share(rollout: Rollout) -> float:
        if rollout.vote is None:
            return 0.0
        counts = votes[rollout.prompt_id]
        return counts[rollout.vote] / counts.total()

    return share


def verdict(rollout: Rollout) -> float:
    """1 for right and 0 for wrong responses: the most that picking can reach.

    Raises:
        DataError: The rollout is not graded.
    """
    if rollout.correct is None:
        raise DataError("is not graded", where=rollout.id, hint="grade it with: stepcredit grade")
    return float(rollout.correct)


BASELINES = ("random", "shortest", "longest", "self-consistency", "oracle")


def make_baseline(name: str, rollouts: Callable[[], Iterable[Rollout]], *, seed: int = 0) -> Baseline:
    """The baseline called ``name``.

    Args:
        name: One of :data:`BASELINES`; length counts characters.
        rollouts: Reads what will be scored, for baselines that must see all of it first.
        seed: Of ``random``.

    Raises:
        UserError: There is no such baseline.
    """
    if name == "random":
        return Baseline(f"random, seed {seed}", partial(random_reward, seed=seed))
    if name in ("shortest", "longest"):
        sign = 1 if name == "longest" else -1
        return Baseline(name, lambda rollout: float(sign * len(rollout.response)))
    if name == "self-consistency":
        return Baseline(name, agreement(rollouts()))
    if name == "oracle":
        return Baseline(name, verdict)
    raise UserError(f"there is no baseline {name!r}", where="--by", hint=f"use {', '.join(BASELINES)}")
