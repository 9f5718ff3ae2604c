"""Graders of one's own: ``python:module:function``, run in worker processes under a time limit."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from stepcredit.errors import UserError
from stepcredit.grading.base import DIFFERS, MATCH, Grade, GradingItem
from stepcredit.grading.pool import Pending, PooledGrader, WorkerPool

PREFIX = "python:"


class FunctionGrader(PooledGrader):
    """Calls ``function(response, answer)`` of a module that can be imported from the current folder.

    It returns a boolean, or a pair of a boolean and the prediction (a string or ``None``).

    Args:
        target: ``module:function``.
        time_limit: Seconds for each answer; one that takes longer is graded wrong, reason ``timeout``.
    """

    name = "python"

    def __init__(self, target: str, *, time_limit: float = 30.0, num_workers: int = 2) -> None:
        module, colon, function = target.partition(":")
        if not module or not colon or not function.isidentifier():
            raise UserError(
                f"{PREFIX}{target} names no function", where="--grader", hint="write python:module:function"
            )
        self._target, self._time_limit = target, time_limit
        self._pool = WorkerPool(
            "stepcredit.grading.custom:load", [target], num_workers=num_workers, time_limit=time_limit
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        """Function and time limit."""
        return {"function": self._target, "time_limit": self._time_limit}

    def _begin(self, item: GradingItem) -> Pending:
        return Pending(self._pool.submit(item.response, item.answer), None, _grade)


def _grade(verdict: tuple[bool, str | None]) -> Grade:
    correct, prediction = verdict
    return Grade(correct, prediction, MATCH if correct else DIFFERS)


def load(target: str) -> Callable[[str, str], tuple[bool, str | None]]:
    """In a worker: import the function and check what it returns."""
    sys.path.insert(0, os.getcwd())
    module, _, name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"{error}; run in the module's folder, or add that folder to PYTHONPATH") from error

    def judge(response: str, answer: str) -> tuple[bool, str | None]:
        verdict = function(response, answer)
        correct, prediction = verdict if isinstance(verdict, tuple) and len(verdict) == 2 else (verdict, None)
        if not isinstance(correct, bool) or not (prediction is None or isinstance(prediction, str)):
            raise TypeError(f"{target} returned {verdict!r}, not a boolean or (boolean, prediction)")
        return correct, prediction

    return judge
