"""Accuracy against n, from one response to all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepcredit.evaluation.samples import Samples
from stepcredit.stats import Interval, ProblemBootstrap, best_of_n, majority_vote, pass_at_n


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Accuracy at one n.

    Attributes:
        chosen_score: Expected score of the chosen response, where there is one: it never falls with n,
            accuracy may.
    """

    n: int
    accuracy: Interval
    chosen_score: float | None = None


def common_curves(samples: Samples, bootstrap: ProblemBootstrap) -> dict[str, tuple[CurvePoint, ...]]:
    """An oracle's choice (``pass``) and the plain vote (``majority``, if there are answers)."""
    ns = _sizes(samples)
    num_correct = samples.correct.sum(axis=1)
    accuracy = {"pass": np.stack([pass_at_n(num_correct, samples.num_responses, n) for n in ns])}
    if samples.has_answers:
        accuracy["majority"] = majority_vote(samples.answers, samples.correct, samples.num_responses, ns)
    return {name: _points(ns, values, bootstrap) for name, values in accuracy.items()}


def scorer_curve(
    samples: Samples, scores: NDArray[np.float64], bootstrap: ProblemBootstrap
) -> tuple[CurvePoint, ...]:
    """Best-of-n by these scores, and the score of the chosen response."""
    ns = _sizes(samples)
    accuracy = best_of_n(scores, samples.correct, samples.num_responses, ns)
    chosen = best_of_n(scores, scores, samples.num_responses, ns).mean(axis=1)
    return _points(ns, accuracy, bootstrap, chosen.tolist())


def _sizes(samples: Samples) -> tuple[int, ...]:
    """Powers of two up to the smallest number of responses, and that number."""
    smallest = int(samples.num_responses.min())
    return tuple(sorted({2**power for power in range(smallest.bit_length())} | {smallest}))


def _points(
    ns: tuple[int, ...],
    accuracy: NDArray[np.float64],
    bootstrap: ProblemBootstrap,
    chosen: list[float] | None = None,
) -> tuple[CurvePoint, ...]:
    low, high = bootstrap.intervals(accuracy)
    return tuple(
        CurvePoint(
            n=n,
            accuracy=Interval(float(row.mean()), float(bottom), float(top)),
            chosen_score=None if chosen is None else chosen[index],
        )
        for index, (n, row, bottom, top) in enumerate(zip(ns, accuracy, low, high, strict=True))
    )
