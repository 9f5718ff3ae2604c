"""Token rewards of score files, for scores that a step's sum of log-ratios does not give."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from stepcredit.data import read_scores
from stepcredit.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRewards:
    """One number per scored token, of many responses; steps and tokens of all responses stand in a row.

    Attributes:
        ids: Rollout ids, in the order of the file.
        rewards: Of each token.
        step_of_token: The step that each token starts in, counted over all responses.
        step_offsets: Response i owns the steps ``step_offsets[i]:step_offsets[i + 1]``.
        token_offsets: The same for tokens.
    """

    ids: tuple[str, ...]
    rewards: Float[np.ndarray, " tokens"]
    step_of_token: Int[np.ndarray, " tokens"]
    step_offsets: Int[np.ndarray, " bounds"]
    token_offsets: Int[np.ndarray, " bounds"]

    def step_sums(self, values: Float[np.ndarray, " tokens"]) -> Float[np.ndarray, " steps"]:
        """Sum of one number per token over each step; 0 for a step without tokens."""
        return np.bincount(self.step_of_token, values, minlength=int(self.step_offsets[-1]))

    def lowest_of_steps(self, values: Float[np.ndarray, " tokens"]) -> Float[np.ndarray, " steps"]:
        """The lowest of one number per token in each step; infinite for a step without tokens."""
        lowest = np.full(int(self.step_offsets[-1]), np.inf)
        np.minimum.at(lowest, self.step_of_token, values)
        return lowest

    def lowest(self, values: Float[np.ndarray, " tokens"]) -> Float[np.ndarray, " responses"]:
        """The lowest of one number per token in each response."""
        return np.asarray(np.minimum.reduceat(values, self.token_offsets[:-1]))

    def aggregate(self, steps: Float[np.ndarray, " steps"], name: str) -> Float[np.ndarray, " responses"]:
        """The ``min``, ``mean`` or ``sum`` of each response's step rewards."""
        starts = self.step_offsets[:-1]
        if name == "min":
            return np.asarray(np.minimum.reduceat(steps, starts))
        sums = np.add.reduceat(steps, starts)
        return np.asarray(sums if name == "sum" else sums / np.diff(self.step_offsets))


def read_token_rewards(path: Path) -> TokenRewards:
    """Read a file that ``stepcredit score --tokens`` wrote.

    Raises:
        DataError: A response has no token rewards.
    """
    ids: list[str] = []
    rewards: list[float] = []
    step_of_token: list[int] = []
    step_offsets, token_offsets = [0], [0]
    for score in read_scores(path):
        if not score.token_rewards or score.token_ends is None:
            raise DataError("has no token rewards", where=f"{path}: {score.id}", hint="score with --tokens")
        ends = [step.end for step in score.steps]
        # A token starts where the one before it ends; the end-of-turn token belongs to the last step.
        starts = (0, *score.token_ends[:-1])
        step_of_token += [step_offsets[-1] + min(bisect_right(ends, at), len(ends) - 1) for at in starts]
        rewards += score.token_rewards
        ids.append(score.id)
        step_offsets.append(step_offsets[-1] + len(ends))
        token_offsets.append(len(rewards))
    return TokenRewards(
        ids=tuple(ids),
        rewards=np.array(rewards),
        step_of_token=np.array(step_of_token),
        step_offsets=np.array(step_offsets),
        token_offsets=np.array(token_offsets),
    )
