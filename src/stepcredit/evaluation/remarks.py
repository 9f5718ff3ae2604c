"""What a reader must know beside the figures: what the responses are like, and what intervals cannot show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from stepcredit.evaluation.best_of_n import BestOfNSettings
from stepcredit.evaluation.samples import Joined, Samples, Scored
from stepcredit.wording import agree, quantity

FEW_PROBLEMS = 20
"""Percentile intervals of the bootstrap are too narrow for fewer problems than this."""


def interval_remarks(
    num_problems: Mapping[str, int], intervals: Iterable[tuple[float, float]]
) -> Iterator[str]:
    """Where intervals are missing, too narrow, or without width.

    Args:
        num_problems: Part of the data (an empty name for all of it) to its problems.
        intervals: Ends of all reported intervals; NaN where there is none.
    """
    for subset, number in num_problems.items():
        where = f"{subset}: " if subset else ""
        if number < 2:
            yield f"{where}with one problem there are neither intervals nor tests"
        elif number < FEW_PROBLEMS:
            yield (
                f"{where}{number} problems are few; bootstrap intervals are too narrow for fewer than "
                f"{FEW_PROBLEMS}"
            )
    if any(low == high for low, high in intervals):
        yield (
            "an interval of zero width means that a figure is the same in all N problems, not that it is "
            "exact: up to 3 in N of other problems may differ (rule of three)"
        )


def best_of_n_remarks(joined: Joined, settings: BestOfNSettings, beyond: Sequence[int]) -> Iterator[str]:
    """On the data of a best-of-n evaluation.

    Args:
        beyond: Sizes that were asked for and are left out.
    """
    samples = joined.samples
    smallest, largest = int(samples.num_responses.min()), int(samples.num_responses.max())
    if smallest != largest:
        fewest = samples.problem_ids[int(samples.num_responses.argmin())]
        yield (
            f"problems have {smallest} to {quantity(largest, 'response')}; {fewest!r} has the fewest, which "
            "limits n"
        )
    if largest == 1:
        yield "every problem has one response, so there is nothing to choose from"
    if beyond:
        yield (
            f"n = {', '.join(map(str, beyond))} {agree(len(beyond), 'is', 'are')} left out: the smallest "
            f"number of responses to a problem is {smallest}"
        )
    if settings.first:
        yield "each n takes the first n responses in the file, not all subsets of them"
    right = int(samples.correct.sum())
    if right in (0, int(samples.num_responses.sum())):
        yield f"{'every' if right else 'no'} response is right, so every way to choose does equally well"
    yield from _answer_remarks(samples)
    for scorer in joined.scorers:
        yield from _scorer_remarks(scorer, samples)


def _answer_remarks(samples: Samples) -> Iterator[str]:
    if not samples.has_answers:
        yield "no response has a prediction, so there is no voting; run grade, which adds predictions"
        return
    abstaining = int((samples.valid & (samples.answers < 0)).sum())
    if abstaining:
        yield (
            f"{quantity(abstaining, 'response')} {agree(abstaining, 'has', 'have')} no prediction and "
            f"{agree(abstaining, 'abstains', 'abstain')} from votes"
        )
    spelled = _spelled_differently(samples)
    if spelled:
        yield (
            f"on {quantity(spelled, 'problem')} right responses have different predictions; votes count them "
            "as different answers"
        )


def _spelled_differently(samples: Samples) -> int:
    """Problems whose right responses do not all have the same prediction."""
    right = samples.correct & (samples.answers >= 0)
    lowest = np.where(right, samples.answers, np.iinfo(np.int64).max).min(axis=1)
    highest = np.where(right, samples.answers, -1).max(axis=1)
    return int((highest > lowest).sum())


def _scorer_remarks(scorer: Scored, samples: Samples) -> Iterator[str]:
    for aggregate, lacking in scorer.incomplete.items():
        yield (
            f"{scorer.name}: {aggregate} is left out, {quantity(lacking, 'response')} "
            f"{agree(lacking, 'lacks', 'lack')} it"
        )
    if len(scorer.columns.scorers) > 1:
        yield f"{scorer.name}: the file mixes scorers: {', '.join(scorer.columns.scorers)}"
    alike = [
        aggregate
        for aggregate, scores in scorer.scores.items()
        if np.array_equal(scores, np.where(samples.valid, scores[:, :1], 0.0))
    ]
    if alike and int(samples.num_responses.max()) > 1:
        yield (
            f"{scorer.name}: {', '.join(alike)} {agree(len(alike), 'is', 'are')} the same for all responses "
            f"to a problem, so {agree(len(alike), 'it picks', 'they pick')} at random"
        )


def development_remarks(held_out: Joined, samples: Samples) -> Iterator[str]:
    """On the problems that choices were made on."""
    shared = len({*held_out.samples.problem_ids} & {*samples.problem_ids})
    if shared:
        yield (
            f"{shared} of the problems that choices were made on are also reported: their figures "
            "are too optimistic"
        )
    correct, sizes = held_out.samples.correct.sum(axis=1), held_out.samples.num_responses
    if not ((correct > 0) & (correct < sizes)).any():
        yield (
            "no development problem has both right and wrong responses, so nothing could be chosen on them: "
            "the first value of each setting is used"
        )


def describe_samples(samples: Samples) -> dict[str, float]:
    """What the responses are like, whoever scores them."""
    every = [rollout for responses in samples.responses for rollout in responses]
    reasons = [rollout.finish_reason for rollout in every if rollout.finish_reason is not None]
    return {
        "right_share": float(samples.correct.sum() / samples.num_responses.sum()),
        "solvable_share": float(samples.correct.any(axis=1).mean()),
        "distinct_responses": float(samples.num_distinct.mean()),
        "distinct_answers": float((samples.answers.max(axis=1) + 1).mean()),
        "without_prediction": float((samples.answers[samples.valid] < 0).mean()),
        "cut_off": float(np.mean([reason == "length" for reason in reasons])) if reasons else math.nan,
        "mean_characters": float(np.mean([len(rollout.response) for rollout in every])),
    }
