"""Graders by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from stepcredit.errors import UserError
from stepcredit.grading.base import Grader
from stepcredit.grading.code import CodeGrader
from stepcredit.grading.custom import PREFIX, FunctionGrader
from stepcredit.grading.mathematics import MathGrader
from stepcredit.grading.reasoning_gym import ReasoningGymGrader
from stepcredit.grading.simple import ChoiceGrader, ExactGrader, NumericGrader

GRADERS: dict[str, Callable[..., Grader]] = {
    grader.name: grader
    for grader in (MathGrader, NumericGrader, ExactGrader, ChoiceGrader, CodeGrader, ReasoningGymGrader)
}


def make_grader(name: str, *, num_workers: int = 2, **options: Any) -> Grader:
    """Make a grader.

    Args:
        name: One of :data:`GRADERS`, or ``python:module:function``.
        options: The grader's own options; ``None`` leaves the default.

    Raises:
        UserError: There is no such grader, or it has no such option.
    """
    grader = GRADERS.get(name)
    if name.startswith(PREFIX):
        grader = partial(FunctionGrader, name.removeprefix(PREFIX))
    if grader is None:
        raise UserError(
            f"there is no grader {name!r}",
            where="--grader",
            hint=f"use one of {', '.join(GRADERS)} or python:module:function",
        )
    given = {option: value for option, value in options.items() if value is not None}
    known = inspect.signature(grader).parameters
    for option in given:
        if option not in known:
            raise UserError(
                f"the grader {name!r} has no option {option!r}",
                hint=f"it takes: {', '.join(sorted(set(known) - {'num_workers'})) or 'none'}",
            )
    if "num_workers" in known:
        given["num_workers"] = num_workers
    return grader(**given)
