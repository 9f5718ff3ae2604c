"""Where the study's problems come from: templates without end, or the files of GSM8K.

A source has a split to train policies on, one to train reward models on, one to choose on, and one or more
to test on; no problem is in two of them. Every problem has a worked solution whose last line is its answer.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final

from stepcredit.data import read_prompts
from stepcredit.errors import DataError
from stepcredit.grading.options import GraderOptions
from stepcredit.types import Prompt
from stepcredit_study.word_problems.practice import arithmetic_problems
from stepcredit_study.word_problems.problems import ANSWER_MARK, ANSWER_PATTERN, SPLITS, WordProblem, problems

POLICY, TRAIN, DEVELOPMENT = "policy", "train", "development"
"""Splits of every source, beside those to test on."""
ARITHMETIC = "arithmetic"
"""Split of problems of another kind, where a source has them."""

_CALCULATION = re.compile(r"<<[^<>]*>>")


class ProblemSource(ABC):
    """Problems in splits.

    Attributes:
        name: Of the study's folder and page.
        test_sets: Name of a test set, as results call it, to its split.
        has_arithmetic: Whether there is a split of :data:`ARITHMETIC`.
        typical_tokens: Of a prompt and of a response, and a response's steps, in the mean, to plan by.
    """

    name: ClassVar[str]
    grader: ClassVar[GraderOptions]
    test_sets: ClassVar[Mapping[str, str]]
    max_new_tokens: ClassVar[int]
    has_arithmetic: ClassVar[bool] = False
    typical_tokens: ClassVar[tuple[float, float, float]]

    @property
    def num_worked(self) -> int | None:
        """Worked solutions that policies can learn from; ``None`` is more than any run takes."""
        return None

    @abstractmethod
    def problems(self, split: str) -> Iterator[WordProblem]:
        """The problems of a split, in order."""


@dataclass(frozen=True, slots=True)
class Templates(ProblemSource):
    """Instances of ``gsm_symbolic``: known templates, and new ones that nothing is trained on."""

    name: ClassVar[str] = "word-problems"
    grader: ClassVar[GraderOptions] = GraderOptions(grader="reasoning-gym", answer_pattern=ANSWER_PATTERN)
    test_sets: ClassVar[Mapping[str, str]] = {"known": "test-known", "new": "test-new"}
    max_new_tokens: ClassVar[int] = 160
    has_arithmetic: ClassVar[bool] = True
    typical_tokens: ClassVar[tuple[float, float, float]] = (76.0, 56.0, 3.3)

    def problems(self, split: str) -> Iterator[WordProblem]:
        """The problems of a split, in order."""
        if split == ARITHMETIC:
            return arithmetic_problems()
        return problems(next(known for known in SPLITS if known.name == split))


_HELD_OUT: Final = {DEVELOPMENT: 200, TRAIN: 3000}
"""Problems of GSM8K's training file that policies are not trained on."""


@dataclass(frozen=True, slots=True)
class Gsm8k(ProblemSource):
    """GSM8K's own files.

    Attributes:
        train: Rows with ``prompt``, ``answer`` and ``solution``, the answer in its last line after ``####``.
        test: The same; tested on.
    """

    train: Path
    test: Path
    name: ClassVar[str] = "gsm8k"
    grader: ClassVar[GraderOptions] = GraderOptions(grader="numeric", answer_pattern=ANSWER_PATTERN)
    test_sets: ClassVar[Mapping[str, str]] = {"test": "test"}
    max_new_tokens: ClassVar[int] = 300
    typical_tokens: ClassVar[tuple[float, float, float]] = (70.0, 94.0, 4.6)

    @property
    def num_worked(self) -> int:
        """The rest of the training file."""
        return sum(1 for _ in self.problems(POLICY))

    def problems(self, split: str) -> Iterator[WordProblem]:
        """The problems of a split: the test file, or a part of the shuffled training file.

        Raises:
            DataError: A row has no worked solution that ends in its answer.
        """
        if split == "test":
            yield from _read(self.test)
            return
        shuffled = list(_read(self.train))
        Random(0).shuffle(shuffled)
        first = 0
        for name, count in _HELD_OUT.items():
            if split == name:
                yield from islice(shuffled, first, first + count)
                return
            first += count
        yield from islice(shuffled, first, None)


def _read(path: Path) -> Iterator[WordProblem]:
    for prompt in read_prompts(path):
        solution: Any = prompt.extras.get("solution")
        plain = _CALCULATION.sub("", solution) if isinstance(solution, str) else ""
        if prompt.answer is None or not plain.rpartition("\n")[2].startswith(ANSWER_MARK):
            raise DataError(
                f"prompt {prompt.id!r} has no worked solution that ends in a line '#### ANSWER'",
                where=path,
                hint="give each row its 'answer' and 'solution', as GSM8K has them",
            )
        yield WordProblem(
            prompt=Prompt(id=prompt.id, prompt=prompt.prompt, answer=prompt.answer), solution=plain
        )
