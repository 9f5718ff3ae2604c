"""What the study asks for: prompts, responses, labels, models and scores, each made once by one command.

Requests are commands on files that other requests made; :class:`~stepcredit.pipelines.driver.Store` names an
output by all that decides it, so a run that was stopped, or is asked for more, goes on from what is there.
Responses come in blocks of problems: more problems are more blocks.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from stepcredit.data import prompt_to_json, write_rows
from stepcredit.generators.options import GeneratorOptions, SamplingOptions
from stepcredit.pipelines import grade, label_autopsv, label_math_shepherd, sample, score, select, train
from stepcredit.pipelines.driver import Store
from stepcredit.runs import atomic_path
from stepcredit_study.frame.world import Responses, reference_scores
from stepcredit_study.word_problems.scale import WordScale
from stepcredit_study.word_problems.sources import ARITHMETIC, ProblemSource


@dataclass(frozen=True, slots=True)
class WordWorld:
    """One scale of the study.

    Attributes:
        policies: Name to weights; the middle one is where reward models start, and their reference.
    """

    source: ProblemSource
    scale: WordScale
    store: Store
    policies: Mapping[str, Path]

    @property
    def middle(self) -> Path:
        """The policy that writes what is trained on."""
        return self.policies["middle"]

    def prompts(self, split: str, first: int, count: int) -> Path:
        """Problems of a split, from the one numbered ``first`` on."""
        settings = {"first": first, "count": count}
        out = self.store.path("prompts", split, settings, ".jsonl")
        return self.store.write(out, partial(_write_prompts, self.source, split, first, count))

    def graded(self, split: str, first: int, count: int, policy: str, num_samples: int) -> Path:
        """A policy's graded responses to these problems."""
        rollouts = self.store.make(
            "sample",
            f"{split}-{policy}",
            sample.Options(
                prompts=self.prompts(split, first, count),
                out=Path(),
                num_samples=num_samples,
                policy=self._generator(policy),
                draw=self._sampling,
            ),
        )
        options = grade.Options(
            rollouts=rollouts,
            out=Path(),
            grader=self.source.grader.grader,
            answer_pattern=self.source.grader.answer_pattern,
            num_workers=1,
        )
        return self.store.make("grade", f"{split}-{policy}", options)

    def train_set(self) -> Path:
        """The middle policy's responses to the training problems."""
        scale = self.scale
        return self._joined("train", scale.train_problems, "middle", scale.train_responses)

    def dev_set(self) -> Path:
        """Its responses to the development problems."""
        return self._joined("development", self.scale.dev_problems, "middle", self.scale.dev_responses)

    def test_blocks(self, policy: str) -> list[tuple[int, int]]:
        """(first problem, problems) of each block of one of a policy's test sets."""
        scale = self.scale
        total = scale.test_problems if policy == "middle" else scale.other_test_problems
        return [(first, min(scale.block, total - first)) for first in range(0, total, scale.block)]

    def test_block(self, split: str, policy: str, first: int, count: int) -> Responses:
        """One block of a test set; the distinct responses are what is scored."""
        graded = self.graded(split, first, count, policy, self.scale.test_responses)
        return Responses(graded, self._select(f"{split}-{policy}", graded, distinct=True))

    def part_of_train_set(self, **part: Any) -> Path:
        """A share of its problems (``prompts``), or the first ``responses`` to each."""
        return self._select("train", self.train_set(), **part)

    def train_set_of_two_policies(self) -> Path:
        """The training problems, with half of the responses from the weak policy."""
        half = self.scale.train_responses // 2
        other = self._joined("train", self.scale.train_problems, "weak", half)
        return self._select("train", self.part_of_train_set(responses=half), other)

    def train_set_with_arithmetic(self) -> Path:
        """The train set, and half as many problems of another kind with as many responses to each."""
        count = max(1, self.scale.train_problems // 2)
        other = self._joined(ARITHMETIC, count, "middle", self.scale.train_responses)
        return self._select("train", self.train_set(), other)

    def train(
        self, method: str, settings: Mapping[str, Any], *, seed: int = 0, data: Path | None = None
    ) -> Path:
        """A reward model, on the labels that its method needs, or on other ``data``."""
        options = train.Options(
            graded=data or self.labels(method) or self.train_set(),
            model=str(self.middle),
            out=Path(),
            dev=self.dev_set(),
            config=self.scale.config(method, **settings),
            cache=self.store.root / "reference",
            seed=seed,
        )
        return self.store.make("train", method, options, suffix="")

    def labels(self, method: str) -> Path | None:
        """The training responses with a method's step labels; ``None`` where it needs none."""
        if method == "math-shepherd":
            return self._math_shepherd(self.train_set())
        if method == "autopsv":
            return self._autopsv(self.train_set())
        return None

    def joined(self, files: Sequence[Path]) -> Path:
        """Files of lines, one after the other."""
        if len(files) == 1:
            return files[0]
        names = [str(file.relative_to(self.store.root)) for file in files]
        out = self.store.path("joined", files[0].name.rpartition("-")[0], names, ".jsonl")
        return self.store.write(out, partial(_join, files))

    def score(self, data: Path, model: Path, **changes: Any) -> Path:
        """A reward model's scores; ``changes`` are options of ``stepcredit score``."""
        method = model.name.rpartition("-")[0]
        # Only an implicit model has a reference, whose log-probabilities trainings and scores share.
        cache = self.store.root / "reference" if method.startswith("implicit") else None
        options = score.Options(input=data, prm=str(model), out=Path(), cache=cache, **changes)
        return self.store.make("score", method, options)

    def reference_scores(self, data: Path) -> Path:
        """The reference's own log-probability, token by token; the reward is its mean over tokens."""
        return reference_scores(self.store, data, self.middle, steps="newline", tokens=True)

    def _joined(self, split: str, total: int, policy: str, num_samples: int) -> Path:
        block = self.scale.block
        parts = (
            self.graded(split, first, min(block, total - first), policy, num_samples)
            for first in range(0, total, block)
        )
        return self._select(split, *parts)

    def _select(self, word: str, *rollouts: Path, **what: Any) -> Path:
        return self.store.make("select", word, select.Options(rollouts=rollouts, out=Path(), **what))

    @property
    def _sampling(self) -> SamplingOptions:
        return SamplingOptions(temperature=1.0, top_p=0.95, max_new_tokens=self.source.max_new_tokens)

    def _generator(self, policy: str) -> GeneratorOptions:
        return GeneratorOptions(model=str(self.policies[policy]), policy_name=policy, batch_samples=128)

    def _math_shepherd(self, data: Path) -> Path:
        options = label_math_shepherd.Options(
            graded=data,
            out=Path(),
            num_completions=self.scale.completions,
            label="soft",
            steps="newline",
            policy=self._generator("middle"),
            draw=self._sampling,
            grading=self.source.grader,
        )
        return self.store.make("label math-shepherd", options.label, options)

    def _autopsv(self, data: Path) -> Path:
        options = label_autopsv.Options(
            graded=data,
            model=str(self.middle),
            dev=self.dev_set(),
            out=Path(),
            config=self.scale.config("verifier", learning_rate=self.scale.rates[-1]),
        )
        return self.store.make("label autopsv", "labels", options)


def _join(files: Sequence[Path], out: Path) -> None:
    with atomic_path(out) as temporary, open(temporary, "wb") as target:
        for file in files:
            with open(file, "rb") as source:
                shutil.copyfileobj(source, target)


def _write_prompts(source: ProblemSource, split: str, first: int, count: int, out: Path) -> None:
    chosen = islice(source.problems(split), first, first + count)
    write_rows(out, (prompt_to_json(problem.prompt) for problem in chosen))
