"""Small rollouts and scores for the tests of this room."""

from collections.abc import Mapping, Sequence

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
    found, start, value = [], 0, 0.0
    for index, (text, reward) in enumerate(zip(steps, rewards, strict=True)):
        value += reward
        found.append(StepScore(index, text, start, start + len(text), reward, value))
        start += len(text)
    return ResponseScore(
        id=response.id,
        prompt_id=response.prompt_id,
        reward=value,
        steps=tuple(found),
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
                [score(each, rewards[name]) for each, (*_, rewards) in zip(rollouts, rows, strict=True)], name
            )
            for name in names
        },
    )
