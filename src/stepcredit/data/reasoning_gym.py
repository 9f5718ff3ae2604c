"""Problems of the package reasoning-gym as prompts: ``reasoning-gym:TASK`` in the place of a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from stepcredit.data.rows import NumberedRow
from stepcredit.errors import UserError
from stepcredit.grading.reasoning_gym import FIELD, make_task
from stepcredit.options import check_at_least_one, named_values, option

PREFIX: Final = "reasoning-gym:"


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Problems of a reasoning-gym task."""

    task_size: int = option("reasoning-gym: number of problems to generate", default=500)
    task_seed: int = option("reasoning-gym: seed that determines the problems", default=0)
    task_setting: tuple[str, ...] = option(
        "reasoning-gym: one of the task's own settings, e.g. min_digits=2 (may be repeated)",
        default=(),
        metavar="NAME=VALUE",
    )

    def __post_init__(self) -> None:
        check_at_least_one(self, "task_size")
        self.settings()

    def settings(self) -> dict[str, Any]:
        """The task's own settings; values are read as JSON, and as text where they are not.

        Raises:
            UserError: One is not NAME=VALUE, or is another option's.
        """
        settings = named_values(self.task_setting, "--task-setting", hint="e.g. min_digits=2")
        for name in settings:
            if name in ("seed", "size"):
                raise UserError(
                    f"{name} has an option of its own", where="--task-setting", hint=f"use --task-{name}"
                )
        return settings


def read_task(source: str, options: TaskOptions) -> Iterator[NumberedRow]:
    """The task's problems as rows of prompts; each says which problem it is, for the grader.

    Raises:
        UserError: There is no such task, or it does not take these settings.
    """
    task, settings = source.removeprefix(PREFIX), options.settings()
    items = make_task(task, seed=options.task_seed, size=options.task_size, settings=settings)
    problem = {"task": task, "seed": options.task_seed, "size": options.task_size, "settings": settings}
    for index, item in enumerate(items):
        yield (
            index + 1,
            {
                "id": f"{task}-{options.task_seed}-{index:06d}",
                "prompt": item["question"],
                "answer": str(item["answer"]),
                FIELD: {**problem, "index": index},
            },
        )
