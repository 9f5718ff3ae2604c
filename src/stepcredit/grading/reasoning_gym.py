"""Tasks of the package reasoning-gym (extra ``reasoning-gym``): problems, and each task's own scoring.

A problem is known by its place: task, settings, seed, size and index make it again, so nothing but these
travels with a prompt, and a grader has all that the task's scoring looks at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Final

from stepcredit.errors import DataError, MissingExtraError, UserError
from stepcredit.grading.base import DIFFERS, MATCH, NO_ANSWER, RULES, Grade, GradingItem
from stepcredit.grading.extraction import compile_answer_pattern, find_answer, stated_answer
from stepcredit.grading.pool import Pending, PooledGrader, WorkerPool

FIELD: Final = "reasoning_gym"
"""Extra field of a prompt, and of its rollouts, that says which problem it is."""

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def make_task(task: str, *, seed: int, size: int, settings: Mapping[str, Any]) -> Any:
    """A task's problems, a sequence of the package's items.

    Args:
        size: How many; in some tasks another size has other problems.

    Raises:
        MissingExtraError: The package is not installed.
        UserError: There is no such task, or it does not take these settings.
    """
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise MissingExtraError(
            "reasoning-gym", "reasoning-gym", needed_for="a task of reasoning-gym"
        ) from error
    if task not in DATASETS:
        near = [name for name in sorted(DATASETS) if task and task.split("_")[0] in name]
        raise UserError(
            f"there is no task {task!r}",
            where="reasoning-gym",
            hint=f"use {', '.join(near)}" if near else "the package's documentation lists its tasks",
        )
    try:
        return reasoning_gym.create_dataset(task, seed=seed, size=size, **settings)
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(
            f"does not take these settings ({error})",
            where=f"reasoning-gym:{task}",
            hint=f"its settings are {', '.join(DATASETS[task][1].__dataclass_fields__)}",
        ) from error


class ReasoningGymGrader(PooledGrader):
    """A response is right where the task's own scoring gives its final answer the full mark.

    The final answer is what ``answer_pattern`` finds; without one, what stands between ``<answer>`` tags or
    is stated as the answer; and where nothing is, the whole response.

    Args:
        answer_pattern: As for :class:`~stepcredit.grading.mathematics.MathGrader`.
        time_limit: Seconds for each answer; one that takes longer is graded wrong, reason ``timeout``.
    """

    name = "reasoning-gym"
    row_fields = (FIELD,)

    def __init__(
        self, *, answer_pattern: str | None = None, time_limit: float = 30.0, num_workers: int = 2
    ) -> None:
        self._answer_pattern, self._time_limit = answer_pattern, time_limit
        self._pattern = compile_answer_pattern(answer_pattern)
        self._pool = WorkerPool(
            "stepcredit.grading.reasoning_gym:scoring", num_workers=num_workers, time_limit=time_limit
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        """Pattern, rules, time limit and the package's version."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            package = version("reasoning-gym")
        except PackageNotFoundError as error:
            raise MissingExtraError(
                "reasoning-gym", "reasoning-gym", needed_for="--grader reasoning-gym"
            ) from error
        return {
            "answer_pattern": self._answer_pattern,
            "rules": RULES,
            "time_limit": self._time_limit,
            "reasoning_gym": package,
        }

    def _begin(self, item: GradingItem) -> Grade | Pending:
        answer = find_answer(item.response, self._pattern, _final_answer)
        if answer is None:
            return Grade(False, None, NO_ANSWER)
        ticket = self._pool.submit(answer, json.dumps(_problem_of(item), sort_keys=True))
        return Pending(ticket, None, partial(_grade, answer))


def _grade(answer: str, verdict: tuple[bool, str]) -> Grade:
    is_right, right_answer = verdict
    return Grade(True, right_answer, MATCH) if is_right else Grade(False, answer, DIFFERS)


def _final_answer(text: str) -> str:
    if tagged := _TAGGED.findall(text):
        return str(tagged[-1]).strip()
    return stated_answer(text) or text.strip()


def _problem_of(item: GradingItem) -> Mapping[str, Any]:
    problem = item.extras.get(FIELD)
    fields = {"task": str, "seed": int, "size": int, "index": int, "settings": dict}
    if not isinstance(problem, Mapping) or any(
        not isinstance(problem.get(name), kind) for name, kind in fields.items()
    ):
        raise DataError(
            f"a response to prompt {item.group!r} does not say which problem of reasoning-gym it answers",
            where=FIELD,
            hint="sample from reasoning-gym:TASK, which writes that field, or use another --grader",
        )
    return problem


def scoring() -> Callable[[str, str], tuple[bool, str]]:
    """In a worker: what scores an answer to a problem, and gives the right answer back."""
    return _score


def _score(answer: str, problem: str) -> tuple[bool, str]:
    dataset, item = _item(problem)
    right_answer = str(item["answer"])
    return dataset.score_answer(answer, item) >= 1.0, right_answer


@lru_cache(maxsize=64)
def _item(problem: str) -> tuple[Any, Any]:
    fields = json.loads(problem)
    index = fields.pop("index")
    dataset = _task(json.dumps(fields))
    return dataset, dataset[index]


@lru_cache(maxsize=8)
def _task(fields: str) -> Any:
    return make_task(**json.loads(fields))
