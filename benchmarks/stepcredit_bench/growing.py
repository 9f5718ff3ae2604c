"""Time and memory of single stages as their input grows, each run in a process of its own."""

from __future__ import annotations

import itertools
import math
import random
import resource
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.checkpoints import load_tokenizer
from stepcredit.cli import main
from stepcredit.data import read_rollouts, write_rows
from stepcredit.generators.transformers import TransformersGenerator
from stepcredit.lab.policies import policy_path
from stepcredit.logprobs import LocalTokenLogProbs
from stepcredit.pipelines import score
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.scorers.loading import chat_encoding
from stepcredit.steps import StepRule
from stepcredit.types import Encoded, GenerationRequest, Prompt, Sampling, TokenLogProbs
from stepcredit_bench.processes import SideReport, compare
from stepcredit_bench.workload import never_ends, random_model


@dataclass(frozen=True, slots=True)
class Input:
    """What a stage is given.

    Attributes:
        problems: Prompts.
        responses: Responses to each.
        steps: Steps of each response.
        step_tokens: Tokens of each step in the lab's tokenizer, the line end included; at least 4.
    """

    problems: int = 8
    responses: int = 8
    steps: int = 6
    step_tokens: int = 8

    def rows(self, seed: int) -> Iterator[dict[str, Any]]:
        """Graded rollouts in the lab's language."""
        draw = random.Random(seed)
        for problem in range(self.problems):
            for index in range(self.responses):
                text = "".join(self._step(draw) for _ in range(self.steps - 1))
                answer = (problem + index) % 3  # right by turns, so that there is something to learn
                yield {
                    "id": f"{problem}/{index}",
                    "prompt_id": str(problem),
                    "index": index,
                    "prompt": f"{problem}*7+5=",
                    "response": f"{text}#{answer}",
                    "answer": str(problem % 3),
                    "correct": answer == problem % 3,
                    "prediction": str(answer),
                }

    def scores(self, seed: int) -> Iterator[dict[str, Any]]:
        """Made-up scores of the rollouts, as a scorer of step rewards writes them."""
        draw = random.Random(seed)
        for row in self.rows(seed):
            texts = row["response"].splitlines(keepends=True)
            ends = list(itertools.accumulate(map(len, texts)))
            rewards = [draw.gauss(0, 1) for _ in texts]
            yield {
                "id": row["id"],
                "prompt_id": row["prompt_id"],
                "reward": sum(rewards),
                "steps": [
                    {
                        "index": index,
                        "text": text,
                        "start": end - len(text),
                        "end": end,
                        "reward": reward,
                        "value": reward,
                    }
                    for index, (text, end, reward) in enumerate(zip(texts, ends, rewards, strict=True))
                ],
                "aggregates": {"min": min(rewards), "last": rewards[-1]},
                "num_tokens": len(row["response"]) + 1,
                "scorer": "made up",
            }

    def _step(self, draw: random.Random) -> str:
        digits = "".join(draw.choice("0123456789") for _ in range(self.step_tokens - 3))
        return f"{draw.randrange(10)}={digits}\n"


@dataclass(frozen=True, slots=True)
class Dimension:
    """What grows.

    Attributes:
        unit: Counted in this, plural.
        largest: As far as the goal goes.
        factor: Between two sizes.
        at: The input of a size.
        stages: Names in :data:`STAGES`.
    """

    unit: str
    largest: int
    factor: int
    at: Callable[[int], Input]
    stages: tuple[str, ...]

    def sizes(self, largest: int, points: int) -> tuple[int, ...]:
        """Rising to ``largest``."""
        return tuple(largest // self.factor**power for power in reversed(range(points)))


DIMENSIONS: Mapping[str, Dimension] = {
    "rollouts": Dimension(
        "rollouts",
        1_000_000,
        4,
        lambda size: Input(problems=math.ceil(size / 50), responses=50),
        ("grade", "convert", "score", "eval"),
    ),
    "length": Dimension(
        "tokens",
        8192,
        2,
        lambda size: Input(problems=2, responses=4, steps=8, step_tokens=size // 8),
        ("score", "model", "sample", "train"),
    ),
    "group": Dimension(
        "responses", 256, 2, lambda size: Input(responses=size), ("score", "model", "sample", "eval", "train")
    ),
    "steps": Dimension(
        "steps", 500, 2, lambda size: Input(steps=size), ("score", "model", "heat map", "train")
    ),
}


class FakeTokenLogProbs:
    """Numbers made of the tokens alone."""

    fingerprint = "fake"

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        """One number per scored token, in [-1, 0)."""
        return [-((np.asarray(item.scored_ids) % 7 + 1) / 7).astype(np.float32) for item in encoded]


@dataclass(frozen=True, kw_only=True)
class FakeScoreOptions(score.Options):
    """``stepcredit score`` with a scorer that runs no model."""

    def load_scorer(self, *, steps: str | None = None, with_tokens: bool = False) -> ImplicitPRM:
        """A policy and a reference of made-up numbers."""
        del steps
        return _scorer(FakeTokenLogProbs(), FakeTokenLogProbs(), with_tokens=with_tokens)


def _scorer(policy: TokenLogProbs, reference: TokenLogProbs, *, with_tokens: bool = False) -> ImplicitPRM:
    encoding = chat_encoding(load_tokenizer(policy_path("mid")), StepRule.parse("newline"), None)
    return ImplicitPRM(policy, reference, 0.05, encoding, with_tokens=with_tokens)


class Stage:
    """One stage at one size: a side of :func:`~stepcredit_bench.processes.compare`.

    Args:
        name: In :data:`STAGES`.
        given: Its input.
        shape: Of the model, where the stage runs one.
        seed: Of input, weights and draws.
    """

    def __init__(self, name: str, given: Input, shape: str, seed: int) -> None:
        self.name, self.given, self.shape, self.seed = name, given, shape, seed

    def load(self) -> None:
        """Write the input; a small one is run first, so that imports are not counted."""
        self._holder = tempfile.TemporaryDirectory(prefix="growth-")
        self.folder = Path(self._holder.name)
        self.rollouts, self.scores = self.folder / "rollouts.jsonl", self.folder / "scores.jsonl"
        if self.name in ("model", "sample", "train"):
            tokenizer = load_tokenizer(policy_path("mid"))
            self.model = random_model(self.shape, seed=self.seed + 1, vocab_size=len(tokenizer))
            self.model.config.max_position_embeddings = 2 * DIMENSIONS["length"].largest
            if self.name == "sample":
                never_ends(self.model, tokenizer.eos_token_id)
            if self.name == "train":
                for saved in (self.model, tokenizer):
                    saved.save_pretrained(self.folder / "model")
        wanted, self.given = self.given, Input(problems=2, responses=2)
        self._write()
        STAGES[self.name](self)
        self.given = wanted
        self._write()

    def _write(self) -> None:
        write_rows(self.rollouts, self.given.rows(self.seed))
        if self.name == "eval":
            write_rows(self.scores, self.given.scores(self.seed))

    def warm_up(self) -> None:
        """Loading did it."""

    def prepare(self) -> None:
        """A run begins with what loading left."""

    def run(self) -> dict[str, Any]:
        """The stage; processor seconds of the processes that it started, and a worker's largest memory."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        STAGES[self.name](self)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Differences first: each is exactly 0 when no process was started.
        seconds = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
        # A process that is forked to ask git for the commit looks as large as this one.
        has_workers = self.name == "grade"
        return {"children_seconds": seconds, "children_mb": after.ru_maxrss / 1024 if has_workers else 0.0}

    def command(self, *words: str | Path) -> None:
        """Run a command of stepcredit in this process.

        Raises:
            RuntimeError: It failed.
        """
        if code := main([*map(str, words)]):
            raise RuntimeError(f"{' '.join(map(str, words))} ended with {code}")


def score_without_model(stage: Stage, **page: Any) -> None:
    """Score by made-up numbers, to :attr:`Stage.scores`."""
    model = str(policy_path("mid"))
    models: dict[str, Any] = {"prm": model, "reference": model, "beta": 0.05, "steps": "newline"}
    score.run(FakeScoreOptions(input=stage.rollouts, out=stage.scores, overwrite=True, **models, **page))


def _score_page(stage: Stage) -> None:
    score_without_model(stage, html=stage.folder / "page.html", html_rows=8)


def _score_by_model(stage: Stage) -> None:
    source = LocalTokenLogProbs(stage.model, weights_hash="random")
    for _ in _scorer(source, source).score_all(read_rollouts(stage.rollouts)):
        pass


def _sample(stage: Stage) -> None:
    generator = TransformersGenerator(stage.model, load_tokenizer(policy_path("mid")), name="random")
    given = stage.given
    sampling = Sampling(max_new_tokens=given.steps * given.step_tokens, seed=stage.seed)
    indices = tuple(range(given.responses))
    for problem in range(given.problems):
        prompt = Prompt(id=str(problem), prompt=f"{problem}*7+5=")
        list(generator.generate([GenerationRequest(prompt=prompt, indices=indices, sampling=sampling)]))


def _grade(stage: Stage) -> None:
    words = ("--grader", "math", "--regrade", "--num-workers", "1", "--overwrite")
    stage.command("grade", stage.rollouts, *words, "--out", stage.folder / "graded.jsonl")


def _convert(stage: Stage) -> None:
    out = stage.folder / "pairs.jsonl"
    stage.command("convert", stage.rollouts, "--to", "trl-unpaired", "--overwrite", "--out", out)


def _eval(stage: Stage) -> None:
    words = ("--scores", f"fake={stage.scores}", "--n", f"1,{stage.given.responses}", "--overwrite")
    stage.command("eval", "best-of-n", stage.rollouts, *words, "--out", stage.folder / "eval")


def _train(stage: Stage) -> None:
    words = (
        "--objective",
        "ce",
        "--batch-size",
        "64",
        "--group-prompts",
        "--steps",
        "newline",
        "--overwrite",
    )
    stage.command(
        "train", stage.rollouts, "--model", stage.folder / "model", *words, "--out", stage.folder / "prm"
    )


STAGES: Mapping[str, Callable[[Stage], None]] = {
    "grade": _grade,
    "convert": _convert,
    "score": score_without_model,
    "heat map": _score_page,
    "eval": _eval,
    "model": _score_by_model,
    "sample": _sample,
    "train": _train,
}
"""``score`` runs no model; ``model`` scores by one that is policy and reference, ``sample`` draws from it,
``train`` is an epoch of CE from it."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What a stage took at each size.

    Attributes:
        dimension: Name in :data:`DIMENSIONS`.
        stage: Name in :data:`STAGES`.
        sizes: Rising.
        reports: One per size.
    """

    dimension: str
    stage: str
    sizes: tuple[int, ...]
    reports: tuple[SideReport, ...]

    @property
    def seconds(self) -> tuple[float, ...]:
        """Processor seconds, of started processes too."""
        return tuple(sum(r.cpu_seconds) + r.outcome["children_seconds"] for r in self.reports)

    @property
    def megabytes(self) -> tuple[float, ...]:
        """Peak memory (MiB) beyond libraries and models, with the largest started process."""
        return tuple(r.working_mb + r.outcome["children_mb"] for r in self.reports)

    @property
    def time_exponent(self) -> float:
        """Of the seconds."""
        return exponent(self.sizes, self.seconds)

    @property
    def memory_exponent(self) -> float:
        """Of the memory."""
        return exponent(self.sizes, self.megabytes)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The ``b`` of the least-squares fit ``log(value) = a + b * log(size)``."""
    slope, _ = np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)
    return float(slope)


def measure(
    dimension: str,
    stage: str,
    sizes: tuple[int, ...],
    *,
    shape: str,
    seed: int,
    threads: int,
    on_turn: Callable[[str, float], None],
) -> Growth:
    """Run a stage at each size, one process after the other."""
    reports = []
    for size in sizes:
        name = f"{stage}, {size:,} {DIMENSIONS[dimension].unit}"
        side = partial(Stage, stage, DIMENSIONS[dimension].at(size), shape, seed)
        reports.append(compare({name: side}, turns=1, threads=threads, on_turn=on_turn)[name])
    return Growth(dimension, stage, sizes, tuple(reports))
