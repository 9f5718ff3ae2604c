"""The world's problems: instances of ``gsm_symbolic`` with small numbers, its templates and its splits.

Purpose: as many graded grade-school problems as are needed, each with a worked solution. Templates are
distinguished by the generator function that makes them; some are kept apart from all training. No question
is in two splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Final

from stepcredit.grading.reasoning_gym import FIELD, make_task
from stepcredit.types import Prompt

TASK: Final = "gsm_symbolic"
NUM_NEW_TEMPLATES: Final = 15
_TEMPLATE_SEED: Final = 16

SMALLEST_TOO_LARGE: Final = 200
"""Numbers from here on are left out, in question and solution."""
LONGEST_SOLUTION: Final = 240
"""Characters of a worked solution."""
ANSWER_MARK: Final = "#### "
ANSWER_PATTERN: Final = r"^#### (.+)$"
"""Finds the final answer of a response (for ``grade``)."""

_NUMBER = re.compile(r"\d[\d,.]*\d|\d")
_STREAM: Final = 400_000
"""Instances of a split's stream, admissible or not."""


@dataclass(frozen=True, slots=True)
class Split:
    """Where a split's problems come from.

    Attributes:
        name: Part of the prompt ids.
        seed: First seed of its instances; splits lie further apart than their streams are long.
        new: Whether its templates are the ones that nothing is trained on.
        reserved: Problems that later splits may not repeat, and the most that can be drawn; 0 is no limit.
    """

    name: str
    seed: int
    new: bool
    reserved: int


SPLITS: Final = tuple(
    Split(name, (index + 1) * 10_000_000, new, reserved)
    for index, (name, new, reserved) in enumerate(
        (
            ("test-known", False, 600),
            ("test-new", True, 600),
            ("development", False, 100),
            ("train", False, 2_000),
            ("policy", False, 0),
        )
    )
)
"""In the order in which they are drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordProblem:
    """One problem.

    Attributes:
        prompt: What the policy is asked, with the right number.
        solution: The worked solution, one step a line, the answer last.
    """

    prompt: Prompt
    solution: str

    @property
    def question(self) -> str:
        """The prompt's text."""
        return str(self.prompt.prompt)


@cache
def new_templates() -> frozenset[int]:
    """The templates that nothing is trained on."""
    from reasoning_gym.arithmetic.gsm_symbolic.gsm_symbolic import tasks_ok

    return frozenset(Random(_TEMPLATE_SEED).sample(sorted(tasks_ok), NUM_NEW_TEMPLATES))


def is_admissible(question: str, answer: str, solution: str) -> bool:
    """Whether numbers are whole and small, the solution is short, and its last line states the answer."""
    numbers = _NUMBER.findall(question) + _NUMBER.findall(solution)
    return (
        len(solution) <= LONGEST_SOLUTION
        and all(number.isdigit() and int(number) < SMALLEST_TOO_LARGE for number in numbers)
        and solution.rpartition("\n")[2] == ANSWER_MARK + answer
    )


def problems(split: Split) -> Iterator[WordProblem]:
    """The split's problems, in order; the first ``n`` are the same however many are taken."""
    excluded = set(_earlier_questions(split.name))
    stream = _instances(split)
    count = 0
    for problem in stream:
        if problem.question in excluded:
            continue
        if split.reserved and count == split.reserved:
            return
        excluded.add(problem.question)
        yield replace(problem, prompt=replace(problem.prompt, id=f"{split.name}-{count:06d}"))
        count += 1


@cache
def _earlier_questions(name: str) -> frozenset[str]:
    questions: set[str] = set()
    for split in SPLITS:
        if split.name == name:
            break
        questions.update(problem.question for problem in problems(split))
    return frozenset(questions)


def _instances(split: Split) -> Iterator[WordProblem]:
    """The admissible ones of the split's templates, as the package draws them, named by template."""
    dataset = make_task(TASK, seed=split.seed, size=_STREAM, settings={})
    new = new_templates()
    for index, template in enumerate(dataset.task_indices):
        if (template in new) != split.new:
            continue
        item = dataset[index]
        question, answer = item["question"].strip(), item["answer"]
        solution = item["metadata"]["answer_cot"].strip()
        if is_admissible(question, answer, solution):
            place = {"task": TASK, "seed": split.seed, "size": _STREAM, "settings": {}, "index": index}
            prompt = Prompt(
                id=f"{TASK}-{template}",
                prompt=question,
                answer=answer,
                extras={"template": template, FIELD: place},
            )
            yield WordProblem(prompt=prompt, solution=solution)
