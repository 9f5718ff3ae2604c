"""Which steps of a response are wrong, by rule."""

from __future__ import annotations

from functools import lru_cache

from stepcredit.lab.second import oracle as second
from stepcredit.lab.task import STEP_RULE, Problem, parse_problem
from stepcredit.steps import split
from stepcredit.types import Rollout, StepLabel


@lru_cache(maxsize=1024)  # equal responses to a problem mostly follow each other
def check_steps(problem: Problem, response: str) -> tuple[StepLabel, ...]:
    """Label each step of any text that claims to solve ``problem``: 1 for right steps, 0 for wrong ones.

    White space around a step is ignored. In the first lab all steps from the first wrong one on are wrong; in
    the second a step can undo an error.
    """
    if problem.modulus > 10:
        return second.check_steps(problem, response)
    expected = problem.solution.split("\n")
    labels, right = [], True
    for step in split(response, STEP_RULE):
        right = right and step.text.strip() in expected[step.index : step.index + 1]
        labels.append(StepLabel(step.end, float(right)))
    return tuple(labels)


def first_wrong_step(problem: Problem, response: str) -> int | None:
    """Index of the first wrong step, whether a later one undoes it or not, or ``None``.

    ``None`` does not mean that the response is right: it may end too soon.
    """
    labels = check_steps(problem, response)
    return next((index for index, label in enumerate(labels) if not label.label), None)


def label_steps(rollout: Rollout) -> tuple[StepLabel, ...]:
    """True step labels by :func:`check_steps`.

    Raises:
        DataError: The rollout's prompt is not a problem of the lab.
    """
    return check_steps(parse_problem(rollout.prompt), rollout.response)
