"""Graded responses of the lab's tutors, for tests of labels, training and comparisons."""

from __future__ import annotations

from stepcredit.lab.task import draw_problems
from stepcredit.lab.tutor import Tutor
from stepcredit.types import Rollout


def tutor_rollouts(
    tutor: Tutor, num_problems: int, samples: int, *, split: str = "train", seed: int = 0
) -> list[Rollout]:
    """Some responses to each of some problems: all first responses, then all second ones, and so on."""
    problems = draw_problems(split, seed=seed, count=num_problems)
    return [
        Rollout(
            id=f"{split}{number}-{index}",
            prompt_id=f"{split}{number}",
            index=index,
            prompt=problem.text,
            response=response,
            answer=problem.answer,
            correct=response[-1] == problem.answer,
            prediction=response[-1],
            finish_reason="stop",
        )
        for index in range(samples)
        for number, (problem, response) in enumerate(
            zip(problems, tutor.write(problems, seed=[seed, index]), strict=True)
        )
    ]
