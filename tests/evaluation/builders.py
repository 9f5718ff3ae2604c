"""Small rollouts and scores for the tests of this room."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from stepcredit.evaluation.labelled_steps import LabelledSteps
from stepcredit.evaluation.samples import Joined, join
from stepcredit.evaluation.score_columns import score_columns
from stepcredit.types import ResponseScore, Rollout, StepScore


def rollout(
    name: str,
    problem: str,
    *,
    correct: bool | None,
    prediction: str | None = None,
    steps: Sequence[str] = ("a\n", "b"),
) -> Rollout:
    """A graded response made of ``steps``."""
    return Rollout(
        id=name,
        prompt_id=problem,
        prompt=f"What is {problem}?",
        response="".join(steps),
        answer="right",
        correct=correct,
        prediction=prediction,
    )


def score(response: Rollout, rewards: Sequence[float], steps: Sequence[str] = ("a\n", "b")) -> ResponseScore:
    """An implicit score: values add up the rewards."""
    scored, start, value = [], 0, 0.0
    for index, (text, reward) in enumerate(zip(steps, rewards, strict=True)):
        value += reward
        scored.append(StepScore(index, text, start, start + len(text), reward, value))
        start += len(text)
    return ResponseScore(
        id=response.id,
        prompt_id=response.prompt_id,
        reward=value,
        steps=tuple(scored),
        aggregates={"min": min(rewards), "last": rewards[-1]},
        num_tokens=len(response.response),
        scorer="fake",
    )


def joined(rows: Sequence[tuple[str, str | None, bool, Mapping[str, Sequence[float]]]]) -> Joined:
    """From (problem, prediction, correct, scorer name to step rewards) of each response."""
    rollouts = [
        rollout(f"r{index}", problem, correct=correct, prediction=prediction)
        for index, (problem, prediction, correct, _) in enumerate(rows)
    ]
    names = rows[0][3]
    return join(
        rollouts,
        {
            name: score_columns(
                [
                    score(response, rewards[name])
                    for response, (*_, rewards) in zip(rollouts, rows, strict=True)
                ],
                name,
            )
            for name in names
        },
    )


def random_steps(num_responses: int = 30, seed: int = 0, *, rounded: bool = False) -> LabelledSteps:
    """Scores that are higher at right steps; one response per problem, some steps without a label."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 6, num_responses)
    labels = (generator.random(sizes.sum()) < 0.7).astype(float)
    labels[generator.random(len(labels)) < 0.1] = np.nan
    scores = generator.normal(np.where(labels == 1.0, 1.0, 0.0))
    scores = np.round(scores) if rounded else scores
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    first_wrong = [
        next((i for i, label in enumerate(labels[start:stop]) if label < 0.5), -1)
        for start, stop in itertools.pairwise(offsets)
    ]
    return LabelledSteps(
        ids=tuple(f"r{i}" for i in range(num_responses)),
        problem_ids=tuple(f"p{i}" for i in range(num_responses)),
        clusters=np.arange(num_responses),
        offsets=offsets,
        labels=labels,
        rewards=scores,
        values=scores,
        first_wrong=np.array(first_wrong),
    )
