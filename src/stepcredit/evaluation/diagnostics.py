"""What may be behind a scorer's figures: surface cues, calibration, over-optimisation, where it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stepcredit.evaluation.curves import CurvePoint, scorer_curve
from stepcredit.evaluation.labelled_steps import step_probabilities
from stepcredit.evaluation.localisation import clustered_auc, clustered_share, minimum_at_last
from stepcredit.evaluation.samples import Samples, Scored
from stepcredit.evaluation.score_columns import REWARD
from stepcredit.evaluation.step_metrics import drawn_calibration_error
from stepcredit.stats import (
    NO_ANSWER,
    Interval,
    ProblemBootstrap,
    Reliability,
    pearson,
    reliability,
    spearman,
)

_DIFFICULTIES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """Of a score with a surface quantity; NaN where either does not vary.

    Attributes:
        pearson: Linear, over all responses.
        spearman: Of ranks, over all responses.
        within_problems: Linear, of the deviations from the means of each problem.
    """

    pearson: float
    spearman: float
    within_problems: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DifficultyBin:
    """Problems with a similar share of right responses.

    Attributes:
        low: Share of right responses, exclusive, except where it equals ``high``.
        high: Inclusive; below 1 in the bin under 1, which has a bin of its own.
        accuracy: Method label to its mean accuracy on them at the largest n.
    """

    low: float
    high: float
    num_problems: int
    accuracy: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of the response with the highest score with the majority of all responses, ties split evenly.

    Attributes:
        share: Of the problems on which both give the same answer.
        accuracy_agreeing: Of the chosen response where they do.
        accuracy_differing: Of the chosen response where they do not.
        majority_differing: Of the majority where they do not.
    """

    share: Interval
    accuracy_agreeing: float
    accuracy_differing: float
    majority_differing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostics:
    """Of one scorer. Intervals draw problems again.

    Attributes:
        aggregate: The score that is diagnosed.
        outcome_auc: Right against wrong responses over all problems.
        within_problem_auc: The same within each problem that has both, mean over problems.
        minimum_is_last: Share of the responses of two steps or more whose lowest step reward is the last;
            ties split evenly.
        correlations: With ``characters``, ``tokens``, ``steps``, and with ``correct`` for comparison.
        calibration: Of sigmoid(reward), or of the reward where all rewards are in [0, 1].
        curve: Best-of-n against n.
        agreement: With the majority; ``None`` without answers.
    """

    aggregate: str
    outcome_auc: Interval
    within_problem_auc: Interval
    minimum_is_last: Interval
    correlations: Mapping[str, Correlation]
    calibration: Reliability
    calibration_error: Interval
    curve: tuple[CurvePoint, ...]
    agreement: Agreement | None
    by_difficulty: tuple[DifficultyBin, ...]


def diagnose(
    samples: Samples,
    scored: Scored,
    aggregate: str,
    accuracy: Mapping[str, NDArray[np.float64]],
    bootstrap: ProblemBootstrap,
) -> Diagnostics:
    """All diagnostics of one scorer.

    Args:
        accuracy: Method label to its accuracy on each problem at the largest n, to show by difficulty.
        bootstrap: Over the problems of ``samples``.
    """
    scores, valid = scored.scores[aggregate], samples.valid
    problem = np.nonzero(valid)[0]
    right = samples.correct[valid]
    # The reward, not the aggregate: only the reward claims to be a log-odds or a probability.
    probabilities = step_probabilities(scored.scores[REWARD][valid])
    bins = reliability(probabilities, right)
    drawn = drawn_calibration_error(probabilities, right, problem, bootstrap)
    return Diagnostics(
        aggregate=aggregate,
        outcome_auc=clustered_auc(scores[valid], right, ~right, problem, bootstrap),
        within_problem_auc=_within_problem_auc(samples, scores, bootstrap),
        minimum_is_last=minimum_is_last(samples, scored, bootstrap),
        correlations=_correlations(samples, scored, scores),
        calibration=bins,
        calibration_error=Interval(bins.error, *bootstrap.quantiles(drawn)),
        curve=scorer_curve(samples, scores, bootstrap),
        agreement=_agreement(samples, scores, bootstrap) if samples.has_answers else None,
        by_difficulty=accuracy_by_difficulty(samples, accuracy),
    )


def _within_problem_auc(
    samples: Samples, scores: NDArray[np.float64], bootstrap: ProblemBootstrap
) -> Interval:
    values = np.zeros(samples.num_problems)
    mixed = np.zeros(samples.num_problems, dtype=bool)
    for index, size in enumerate(samples.num_responses):
        right = samples.correct[index, :size]
        good, bad = scores[index, :size][right], scores[index, :size][~right]
        if len(good) and len(bad):
            mixed[index] = True
            difference = good[:, None] - bad
            values[index] = (difference > 0).mean() + 0.5 * (difference == 0).mean()
    return clustered_share(values, mixed, np.arange(samples.num_problems), bootstrap)


def minimum_is_last(samples: Samples, scored: Scored, bootstrap: ProblemBootstrap) -> Interval:
    """Share of the responses of two steps or more whose lowest step reward is the last one."""
    at_last, several = minimum_at_last(scored.columns.step_rewards, scored.columns.step_offsets)
    rows, problem = scored.rows[samples.valid], np.nonzero(samples.valid)[0]
    return clustered_share(at_last[rows], several[rows], problem, bootstrap)


def _correlations(samples: Samples, scored: Scored, scores: NDArray[np.float64]) -> dict[str, Correlation]:
    characters = samples.of_responses(
        [[float(len(rollout.response)) for rollout in responses] for responses in samples.responses]
    )
    return {
        name: correlate(scores, np.asarray(quantity, dtype=np.float64), samples)
        for name, quantity in (
            ("characters", characters),
            ("tokens", scored.num_tokens),
            ("steps", scored.num_steps),
            ("correct", samples.correct),
        )
    }


def correlate(scores: NDArray[np.float64], quantity: NDArray[np.float64], samples: Samples) -> Correlation:
    """Correlations over all responses and within problems."""
    valid = samples.valid

    def deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
        means = np.sum(values, axis=1, where=valid) / samples.num_responses
        return np.asarray((values - means[:, None])[valid])

    return Correlation(
        pearson=pearson(scores[valid], quantity[valid]),
        spearman=spearman(scores[valid], quantity[valid]),
        within_problems=pearson(deviations(scores), deviations(quantity)),
    )


def _agreement(samples: Samples, scores: NDArray[np.float64], bootstrap: ProblemBootstrap) -> Agreement:
    valid = samples.valid
    masked = np.where(valid, scores, -np.inf)
    chosen = masked == masked.max(axis=1, keepdims=True)
    picked = chosen / chosen.sum(axis=1, keepdims=True)
    wins = np.zeros(valid.shape, dtype=bool)
    tied = np.ones(samples.num_problems)
    for index, answers in enumerate(samples.answers):
        given = answers[answers != NO_ANSWER]
        if len(given):
            counts = np.bincount(given)
            wins[index] = (answers != NO_ANSWER) & (counts[answers] == counts.max())
            tied[index] = (counts == counts.max()).sum()
    agree = picked * wins / tied[:, None]
    agreeing = agree.sum(axis=1)
    right_agreeing = (agree * samples.correct).sum(axis=1)
    right_picked = (picked * samples.correct).sum(axis=1)
    # All winning answers have as many votes, so each vote for one carries the same share of the choice.
    right_majority = (wins * samples.correct).sum(axis=1) / np.maximum(wins.sum(axis=1), 1)
    differing = 1.0 - agreeing
    return Agreement(
        share=bootstrap.interval(agreeing),
        accuracy_agreeing=_ratio(right_agreeing, agreeing),
        accuracy_differing=_ratio(right_picked - right_agreeing, differing),
        majority_differing=_ratio(right_majority - right_agreeing, differing),
    )


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> float:
    total = float(below.sum())
    return float(above.sum()) / total if total > 1e-9 else float("nan")


def accuracy_by_difficulty(
    samples: Samples, accuracy: Mapping[str, NDArray[np.float64]]
) -> tuple[DifficultyBin, ...]:
    """Accuracy by the share of right responses; none and all right are bins of their own.

    Args:
        accuracy: Method label to its accuracy on each problem.
    """
    share = samples.correct.sum(axis=1) / samples.num_responses
    edges = [(0.0, 0.0), *pairwise(_DIFFICULTIES), (1.0, 1.0)]
    bins = []
    for low, high in edges:
        here = share == low if low == high else (share > low) & (share <= high) & (share < 1.0)
        if here.any():
            means = {label: float(values[here].mean()) for label, values in accuracy.items()}
            means = {"pass@1": float(share[here].mean()), **means}
            bins.append(DifficultyBin(low=low, high=high, num_problems=int(here.sum()), accuracy=means))
    return tuple(bins)
