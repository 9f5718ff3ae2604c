"""Ways to score a response by token log-probabilities of a reward model and of its reference.

An implicit PRM's log-ratio says little of a token that the reference hardly ever writes: training saw few of
them, so nothing fixed their ratio, and the more responses there are to choose from, the more of them hold one
whose ratio is high by accident. Each rule here changes what such a token is worth, and leaves the sampler
and the model as they are. A rule has one number, its strength, which is chosen on development responses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from stepcredit_study.analyses.tokens import TokenRewards, read_token_rewards
from stepcredit_study.frame.measuring import TestBed

TokenRule = Callable[
    [Float[np.ndarray, " tokens"], Float[np.ndarray, " tokens"], float], Float[np.ndarray, " tokens"]
]
"""Log-probabilities (nats) of tokens under the reward model and the reference, and a strength, to rewards."""

AS_TRAINED, FILTER = "as trained", "reference filter"
RARE = 0.03
"""A token of less probability under the reference is outside its support."""

_LEFT_OUT = 1e6


@dataclass(frozen=True, slots=True)
class Remedy:
    """A rule and the strengths to choose from."""

    rule: TokenRule
    strengths: tuple[float, ...] = (0.0,)


def log_ratio(policy: NDArray[np.float64], reference: NDArray[np.float64], _: float) -> NDArray[np.float64]:
    """The implicit reward as it is: log pi - log pi_ref."""
    return policy - reference


def filtered(policy: NDArray[np.float64], reference: NDArray[np.float64], rare: float) -> NDArray[np.float64]:
    """As it is; but a response with a token of less probability than ``rare`` comes after all others."""
    return policy - reference - _LEFT_OUT * (reference < math.log(rare))


def floored(policy: NDArray[np.float64], reference: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """Rewards log pi - log max(pi_ref, floor): a rare token is worth what the model itself makes of it.

    A floor of 0 is the implicit reward, a floor of 1 the reward without reference.
    """
    return policy - np.maximum(reference, math.log(floor))


def mixed(policy: NDArray[np.float64], reference: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Rewards log pi - (1 - share) log pi_ref: best-of-n regularised by the reference's likelihood.

    A share of 1 is the reward without reference (arXiv:2404.01054 adds the same term to any reward).
    """
    return policy - (1.0 - share) * reference


def clipped(policy: NDArray[np.float64], reference: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """The log-ratio, no further than ``most`` from 0."""
    return np.clip(policy - reference, -most, most)


def pessimistic(
    policy: NDArray[np.float64], reference: NDArray[np.float64], scale: float
) -> NDArray[np.float64]:
    """The log-ratio minus ``scale`` standard errors: training saw a token in proportion to its pi_ref.

    A mean over n pi_ref sightings has an error of 1 / sqrt(n pi_ref); what a certain token would be
    charged is left off, so that length costs nothing.
    """
    return policy - reference - scale * np.expm1(-reference / 2)


REMEDIES: Mapping[str, Remedy] = {
    AS_TRAINED: Remedy(log_ratio),
    FILTER: Remedy(filtered, (RARE,)),
    "clipped log-ratio": Remedy(clipped, (0.25, 0.5, 1.0, 2.0, 4.0)),
    "reference-free": Remedy(floored, (1.0,)),
    "likelihood term": Remedy(mixed, (0.05, 0.1, 0.2, 0.5, 0.8)),
    "reference floor": Remedy(floored, (0.003, 0.01, 0.03, 0.1, 0.3)),
    "lower bound": Remedy(pessimistic, (0.01, 0.03, 0.1, 0.3, 1.0)),
}
"""The first is none; the others change the score and nothing else."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """How to score.

    Attributes:
        models: Reward models; of several the lowest reward of a step counts.
        rule: Tokens to rewards.
        aggregate: What stands for a response: ``min``, ``mean`` or ``sum`` of its steps.
    """

    models: tuple[str, ...]
    rule: TokenRule
    strength: float
    aggregate: str


class TokenBed:
    """Responses with the log-probabilities of their tokens.

    Args:
        models: Reward model to a file of its token rewards.
    """

    def __init__(
        self, bed: TestBed, models: Mapping[str, Path], betas: Mapping[str, float], reference: Path
    ) -> None:
        self.bed = bed
        self.reference: TokenRewards = read_token_rewards(reference)
        self.rows = bed.scored(reference).rows
        known = self.reference.rewards
        self.policies = {
            name: read_token_rewards(path).rewards / betas[name] + known for name, path in models.items()
        }

    def step_rewards(self, scoring: Scoring) -> NDArray[np.float64]:
        """Rewards of all steps of the scored responses."""
        tokens = self.reference
        rewards = [
            tokens.step_sums(scoring.rule(self.policies[name], tokens.rewards, scoring.strength))
            for name in scoring.models
        ]
        return np.asarray(np.minimum.reduce(rewards))

    def scores(self, scoring: Scoring) -> NDArray[np.float64]:
        """Scores of all responses, shape (problems, responses)."""
        values = self.reference.aggregate(self.step_rewards(scoring), scoring.aggregate)
        return np.where(self.bed.samples.valid, values[self.rows], 0.0)

    def accuracy(self, scoring: Scoring) -> dict[int, float]:
        """N to the mean accuracy of best-of-n."""
        accuracy = self.bed.best_of_n(self.scores(scoring))
        return {n: float(values.mean()) for n, values in accuracy.items()}

    def choose(self, models: tuple[str, ...], remedy: Remedy, aggregate: str) -> Scoring:
        """The strength with the best accuracy among most responses; of equals the best over all n."""

        def quality(scoring: Scoring) -> tuple[float, float]:
            accuracy = self.accuracy(scoring)
            return accuracy[max(accuracy)], sum(accuracy.values())

        scorings = (Scoring(models, remedy.rule, strength, aggregate) for strength in remedy.strengths)
        return max(scorings, key=quality)

    def rare_ratios(self, model: str, responses: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Log-ratios (nats) of the tokens outside the reference's support in some responses.

        Args:
            responses: Which, shape (problems, responses); equal ones count once.
        """
        tokens = self.reference
        response_of_token = np.repeat(np.arange(len(tokens.ids)), np.diff(tokens.token_offsets))
        rare = np.isin(response_of_token, self.rows[responses]) & (tokens.rewards < math.log(RARE))
        return np.asarray(self.policies[model][rare] - tokens.rewards[rare])

    def holds_rare(self) -> NDArray[np.bool_]:
        """Which responses hold a token outside the reference's support, shape (problems, responses)."""
        return np.asarray(self.reference.lowest(self.reference.rewards) < math.log(RARE))[self.rows]
