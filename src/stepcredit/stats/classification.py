"""How well a score separates two classes, and whether its probabilities can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped


def midranks(values: Float[np.ndarray, " items"]) -> Float[np.ndarray, " items"]:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[which]


def auc(scores: Float[np.ndarray, " items"], positive: Bool[np.ndarray, " items"]) -> float:
    """Chance that a positive scores above a negative, ties counted half; NaN without both classes."""
    positive = np.asarray(positive, dtype=bool)
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return float("nan")
    rank_sum = float(midranks(np.asarray(scores))[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2.0) / (num_positive * num_negative)


def clustered_auc_parts(
    scores: Float[np.ndarray, " items"], positive: Bool[np.ndarray, " items"]
) -> Float[np.ndarray, " items"]:
    """For each item, the share of the other class that it is on the right side of (ties half).

    The mean over positives, like that over negatives, is the AUC; so these are what a bootstrap over
    clusters of items draws again (DeLong et al. 1988).
    """
    scores, positive = np.asarray(scores), np.asarray(positive, dtype=bool)
    above, below = np.sort(scores[positive]), np.sort(scores[~positive])
    parts = np.full(len(scores), np.nan)
    if len(above) and len(below):
        for mine, other, sign in ((positive, below, 1), (~positive, above, -1)):
            less = np.searchsorted(other, scores[mine], "left")
            not_more = np.searchsorted(other, scores[mine], "right")
            share = (less + not_more) / (2.0 * len(other))
            parts[mine] = share if sign > 0 else 1.0 - share
    return parts


def average_precision(scores: Float[np.ndarray, " items"], positive: Bool[np.ndarray, " items"]) -> float:
    """Sum over distinct thresholds of precision x gain in recall; NaN without a positive."""
    positive = np.asarray(positive, dtype=bool)
    if not positive.any():
        return float("nan")
    thresholds, which = np.unique(-np.asarray(scores), return_inverse=True)
    hits = np.bincount(which, positive, len(thresholds))
    total_hits = np.cumsum(hits)
    taken = np.cumsum(np.bincount(which, minlength=len(thresholds)))
    return float((hits * total_hits / taken).sum() / positive.sum())


def f1(precision: float, recall: float) -> float:
    """Harmonic mean; 0 where both are 0."""
    total = precision + recall
    return 2.0 * precision * recall / total if total > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class Reliability:
    """Predicted against observed, by bins of equal width over [0, 1].

    Attributes:
        edges: Bin edges, one more than bins.
        counts: Items a bin.
        predicted: Mean prediction a bin, NaN where empty.
        observed: Mean outcome a bin, NaN where empty.
        error: Expected calibration error: mean over items of the bin's |predicted - observed|.
        brier: Mean squared difference of prediction and outcome.
    """

    edges: Float[np.ndarray, " edges"]
    counts: Int[np.ndarray, " bins"]
    predicted: Float[np.ndarray, " bins"]
    observed: Float[np.ndarray, " bins"]
    error: float
    brier: float


def reliability(
    probabilities: Float[np.ndarray, " items"], outcomes: Shaped[np.ndarray, " items"], num_bins: int = 10
) -> Reliability:
    """Calibration of probabilities in [0, 1] against outcomes in [0, 1]."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    outcomes = np.asarray(outcomes, dtype=np.float64)
    if np.any((probabilities < 0.0) | (probabilities > 1.0)):
        raise ValueError("probabilities must be in [0, 1]")
    which = np.minimum((probabilities * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(which, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(which, probabilities, num_bins) / counts
        observed = np.bincount(which, outcomes, num_bins) / counts
    filled = counts > 0
    total = max(len(probabilities), 1)
    error = float((np.abs(predicted - observed) * counts)[filled].sum() / total)
    brier = float(((probabilities - outcomes) ** 2).sum() / total)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    return Reliability(edges, counts, predicted, observed, error, brier)


def sigmoid(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """1 / (1 + exp(-x)) without overflow."""
    values = np.asarray(values, dtype=np.float64)
    decay = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0.0, 1.0, decay) / (1.0 + decay))


def fit_log_odds(
    scores: Float[np.ndarray, " items"], outcomes: Shaped[np.ndarray, " items"]
) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of outcomes on scores (Platt 1999), by Newton's method.

    Outcomes are smoothed towards the middle as Platt does, so separable classes give finite values.
    """
    scores = np.asarray(scores, dtype=np.float64)
    positive = np.asarray(outcomes) > 0.5
    count = int(positive.sum())
    targets = np.where(positive, (count + 1.0) / (count + 2.0), 1.0 / (len(scores) - count + 2.0))
    center, scale = float(scores.mean()), float(scores.std()) or 1.0
    design = np.stack([(scores - center) / scale, np.ones(len(scores))])
    parameters = np.zeros(2)
    for _ in range(100):
        predicted = sigmoid(parameters @ design)
        gradient = design @ (targets - predicted)
        curvature = (design * (predicted * (1.0 - predicted))) @ design.T
        # A trace of ridge: where all scores are equal the curvature has no inverse.
        step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
        # A damped step cannot overshoot into the flat tails of the sigmoid.
        parameters += step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            break
    slope = float(parameters[0]) / scale
    return slope, float(parameters[1]) - slope * center


def pearson(first: Shaped[np.ndarray, " items"], second: Shaped[np.ndarray, " items"]) -> float:
    """Linear correlation; NaN where either does not vary."""
    first = np.asarray(first, dtype=np.float64) - np.mean(first)
    second = np.asarray(second, dtype=np.float64) - np.mean(second)
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / scale) if scale > 0.0 else float("nan")


def spearman(first: Shaped[np.ndarray, " items"], second: Shaped[np.ndarray, " items"]) -> float:
    """Rank correlation with midranks; NaN where either does not vary."""
    return pearson(midranks(np.asarray(first)), midranks(np.asarray(second)))
