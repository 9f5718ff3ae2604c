"""The problems from which most can be learned: a wrong response beats a right one by far."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stepcredit.evaluation.samples import Samples, Scored
from stepcredit.evaluation.score_columns import ScoreColumns
from stepcredit.stats import NO_ANSWER
from stepcredit.types import PromptText, Rollout

_SHOWN = 5
"""Failures of a scorer."""


@dataclass(frozen=True, slots=True)
class ShownStep:
    """A step of a response and its reward; the text is empty where the scored text was rewritten."""

    text: str
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownResponse:
    """A response to look at.

    Attributes:
        prediction: Its answer, if one was extracted.
        copies: Responses to the problem with the same text.
    """

    id: str
    response: str
    prediction: str | None
    score: float
    copies: int
    steps: tuple[ShownStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A problem on which the scorer prefers a wrong response although there is a right one.

    Attributes:
        margin: Score of the chosen response minus that of the best right one, in standard deviations of
            the scorer's scores over all responses.
        majority_right: Whether the most frequent answer is right; ``None`` without answers, or on a tie
            of right and wrong.
        chosen: The wrong response with the highest score.
        best_right: The right response with the highest score.
    """

    problem_id: str
    prompt: PromptText
    answer: str | None
    right_share: float
    margin: float
    majority_right: bool | None
    chosen: ShownResponse
    best_right: ShownResponse


def worst_failures(samples: Samples, scored: Scored, aggregate: str) -> tuple[Failure, ...]:
    """The failures with the largest margins, by falling margin, where ``aggregate`` chooses."""
    scores, valid = scored.scores[aggregate], samples.valid
    best_right = np.where(valid & samples.correct, scores, -np.inf)
    best_wrong = np.where(valid & ~samples.correct, scores, -np.inf)
    with np.errstate(invalid="ignore"):
        margins = best_wrong.max(axis=1) - best_right.max(axis=1)
    margins = np.where(np.isfinite(margins) & (margins > 0.0), margins, 0.0)
    spread = float(scores[valid].std()) or 1.0
    order = [int(index) for index in np.argsort(-margins, kind="stable")[:_SHOWN] if margins[index] > 0.0]
    return tuple(
        Failure(
            problem_id=samples.problem_ids[index],
            prompt=samples.responses[index][0].prompt,
            answer=samples.responses[index][0].answer,
            right_share=float(samples.correct[index].sum() / samples.num_responses[index]),
            margin=float(margins[index]) / spread,
            majority_right=_majority_right(samples, index),
            chosen=_shown(samples, scored, scores, index, int(best_wrong[index].argmax())),
            best_right=_shown(samples, scored, scores, index, int(best_right[index].argmax())),
        )
        for index in order
    )


def _majority_right(samples: Samples, problem: int) -> bool | None:
    answers = samples.answers[problem]
    given = answers[answers != NO_ANSWER]
    if not len(given):
        return None
    counts = np.bincount(given)
    winning = (answers != NO_ANSWER) & (counts[answers] == counts.max())
    right = samples.correct[problem][winning]
    return bool(right.all()) if right.all() or not right.any() else None


def _shown(
    samples: Samples, scored: Scored, scores: NDArray[np.float64], problem: int, response: int
) -> ShownResponse:
    rollout = samples.responses[problem][response]
    return ShownResponse(
        id=rollout.id,
        response=rollout.response,
        prediction=rollout.prediction,
        score=float(scores[problem, response]),
        copies=sum(other.response == rollout.response for other in samples.responses[problem]),
        steps=shown_steps(rollout, scored.columns, int(scored.rows[problem, response])),
    )


def shown_steps(rollout: Rollout, columns: ScoreColumns, row: int) -> tuple[ShownStep, ...]:
    """The scored steps of a response, by its row in the scores."""
    steps = columns.steps_of(row)
    ends = columns.step_ends[steps].tolist()
    texts = [
        "" if columns.is_rewritten(row) else rollout.response[start:end]
        for start, end in pairwise([0, *ends])
    ]
    rewards = columns.step_rewards[steps].tolist()
    return tuple(ShownStep(text, reward) for text, reward in zip(texts, rewards, strict=True))
