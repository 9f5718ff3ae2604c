"""What is chosen for a scorer, and how its scores become weights in a vote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepcredit.evaluation.score_columns import REWARD
from stepcredit.stats import sigmoid

VOTE_KINDS = ("sigmoid", "sum", "mean", "max", "log-odds")
"""How a response's score becomes its weight in the vote; see :func:`vote_weights`."""

# A probability of exactly 0 or 1 would have infinite log-odds and decide every vote.
_PROBABILITY_MARGIN = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was chosen for a scorer, and on which problems.

    Attributes:
        aggregate: The scorer's score that stands for it in comparisons.
        temperature: Divides scores before the sigmoid of the ``sigmoid`` vote.
        log_odds: Aggregate to (slope, intercept) of its calibrated log-odds of being right; empty where
            scores are taken as log-odds as they are.
        chosen_on: ``fixed``, or the development problems, in words.
    """

    aggregate: str
    temperature: float = 1.0
    log_odds: Mapping[str, tuple[float, float]]
    chosen_on: str


def fixed_choice(aggregate: str = REWARD) -> Choice:
    """Nothing is chosen on data: ``aggregate`` is given, scores are log-odds as they are."""
    return Choice(aggregate=aggregate, log_odds={}, chosen_on="fixed")


def vote_weights(
    kind: str, scores: NDArray[np.float64], valid: NDArray[np.bool_], choice: Choice, aggregate: str = REWARD
) -> NDArray[np.float64]:
    """What each response adds to its answer.

    - ``sigmoid``: sigmoid(score / temperature), the paper's weighted vote.
    - ``sum``, ``mean``, ``max``: the score itself; the answer with the greatest sum, mean or maximum wins.
    - ``log-odds``: the log-odds that the response is right, the best weights where responses err
      independently (Nitzan and Paroush 1982). They are calibrated on development problems if there are
      any. Without, scores that all lie in [0, 1] are taken as probabilities, none nearer to 0 or 1 than
      1e-6, others as log-odds as they are (then this is the same vote as ``sum``).
    """
    if kind == "sigmoid":
        return sigmoid(scores / choice.temperature)
    if kind != "log-odds":
        return scores
    if aggregate in choice.log_odds:
        slope, intercept = choice.log_odds[aggregate]
        return slope * scores + intercept
    if scores[valid].min() >= 0.0 and scores[valid].max() <= 1.0:
        probability = np.clip(scores, _PROBABILITY_MARGIN, 1.0 - _PROBABILITY_MARGIN)
        return np.asarray(np.log(probability) - np.log1p(-probability))
    return scores
