"""What a study would take: tokens that models write, read and are trained on, stage by stage, and hours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from stepcredit.wording import quantity
from stepcredit_study.word_problems.fine_tuning import Recipe
from stepcredit_study.word_problems.scale import (
    FEW_PROBLEMS,
    FIRST,
    METHODS,
    OTHER_KIND,
    UNREFERENCED,
    WITHOUT,
    WordScale,
)
from stepcredit_study.word_problems.sources import ProblemSource
from stepcredit_study.word_problems.variants import QUARTER

RATES: Final[Mapping[str, float]] = {"written": 240.0, "read": 460.0, "trained": 130.0}
"""Tokens per second of SmolLM2-135M in float32 on one core of a busy 2021 server (docs/reproduction.md)."""
_WORKED: Final = 133
"""Tokens of a worked solution, with its problem, in fine-tuning; a sequence of practice has as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """One stage.

    Attributes:
        written: Tokens that a policy writes.
        read: Tokens of forward passes that score.
        trained: Tokens of forward and backward passes.
    """

    stage: str
    written: float = 0.0
    read: float = 0.0
    trained: float = 0.0

    @property
    def hours(self) -> float:
        """At :data:`RATES`."""
        tokens: Mapping[str, float] = asdict(self)
        return sum(tokens[kind] / rate for kind, rate in RATES.items()) / 3600


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """All stages, in order."""

    source: type[ProblemSource]
    stages: tuple[StagePlan, ...]

    def to_json(self) -> Any:
        """Stages with their hours, and the rates behind them."""
        rows = [asdict(stage) | {"hours": stage.hours} for stage in self.stages]
        return {"study": self.source.name, "stages": rows, "tokens per second": dict(RATES)}

    def to_text(self) -> str:
        """A line per stage, and the sum."""
        head = f"{'stage':<46}{'written':>12}{'read':>12}{'trained':>12}{'hours':>8}"
        total = StagePlan(
            stage="total", **{kind: sum(getattr(stage, kind) for stage in self.stages) for kind in RATES}
        )
        lines = [
            f"{stage.stage:<46}{stage.written:>12,.0f}{stage.read:>12,.0f}{stage.trained:>12,.0f}"
            f"{stage.hours:>8.1f}"
            for stage in (*self.stages, total)
        ]
        rates = ", ".join(f"{rate:g} {kind}" for kind, rate in RATES.items())
        note = f"hours on one core, at {rates} tokens per second; assumes that the middle policy is the last"
        return "\n".join([head, *lines, note])


def plan_study(source: type[ProblemSource], scale: WordScale) -> StudyPlan:
    """What :func:`~stepcredit_study.word_problems.study.run_study` would do.

    Equal responses, which are scored once, are not taken into account; pairs of DPO and NCA are taken for
    all responses.
    """
    return StudyPlan(source=source, stages=tuple(_stages(source, scale)))


def _stages(source: type[ProblemSource], scale: WordScale) -> Iterator[StagePlan]:
    prompt, response, steps = source.typical_tokens
    whole = prompt + response
    recipe = Recipe()
    yield StagePlan(
        stage=f"fine-tuning, {scale.steps} steps",
        trained=scale.steps * (recipe.solutions + recipe.practice) * _WORKED,
    )
    num_dev = scale.dev_problems * scale.dev_responses
    lengths = scale.steps // scale.measured_every
    yield StagePlan(
        stage=f"development responses, {lengths} lengths",
        written=lengths * num_dev * response,
        read=num_dev * whole,
    )
    num_train = scale.train_problems * scale.train_responses
    yield StagePlan(stage=f"training responses, {num_train:,}", written=num_train * response)
    data = num_train * whole
    for method in scale.methods:
        yield _method(scale, method, data=data, dev=num_dev * whole, steps=steps)
    yield from _tests(source, scale, whole, response)
    if variants := [name for name in scale.variants if name != OTHER_KIND or source.has_arithmetic]:
        methods = [method for method in FIRST if method in scale.methods]
        yield _variants(source, scale, variants, len(methods), data)


def _method(scale: WordScale, method: str, *, data: float, dev: float, steps: float) -> StagePlan:
    is_implicit = METHODS[method].get("family", "implicit") == "implicit"
    tried = len(scale.rates) + len(scale.betas if is_implicit else scale.more_rates)
    trainings = tried + scale.num_seeds(method) - 1
    written = read = 0.0
    if method == "math-shepherd":  # of every prefix but the whole response, half a response remains
        written = data * (steps - 1) * scale.completions / 2
    elif method == "autopsv":
        trainings, read = trainings + 1, data
    return StagePlan(
        stage=f"{method}, {quantity(trainings, 'training')}",
        written=written,
        read=read + trainings * dev + (data if method == "implicit-ce" else 0.0),
        trained=trainings * data * scale.training.get("epochs", 1.0),
    )


def _tests(
    source: type[ProblemSource], scale: WordScale, whole: float, response: float
) -> Iterator[StagePlan]:
    models = 1 + sum(scale.num_seeds(method) for method in scale.methods)
    for policy, problems in (
        ("middle", scale.test_problems),
        ("weak", scale.other_test_problems),
        ("strong", scale.other_test_problems),
    ):
        count = len(source.test_sets) * problems * scale.test_responses
        yield StagePlan(
            stage=f"{count:,} test responses of the {policy} policy, scored",
            written=count * response,
            read=models * count * whole,
        )


def _variants(
    source: type[ProblemSource], scale: WordScale, names: list[str], num_methods: int, data: float
) -> StagePlan:
    prompt, response, _ = source.typical_tokens
    sizes = {FEW_PROBLEMS: QUARTER, UNREFERENCED: 0.0, WITHOUT: 0.0, OTHER_KIND: 1.5}  # two train nothing new
    tests = len(source.test_sets) * scale.test_problems * scale.test_responses * (prompt + response)
    return StagePlan(
        stage=f"{quantity(len(names), 'variant')} of {quantity(num_methods, 'method')}",
        written=scale.train_problems * scale.train_responses * response,
        read=num_methods * len(names) * tests,
        trained=num_methods * data * sum(sizes.get(name, 1.0) for name in names),
    )
