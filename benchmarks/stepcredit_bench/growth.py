"""How time and memory grow with rollouts, length, group size and steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.errors import UserError
from stepcredit.options import check_at_least_one, option

if TYPE_CHECKING:
    from stepcredit_bench.growing import Growth

DIMENSION_NAMES = ("rollouts", "length", "group", "steps")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit bench growth``."""

    by: str = option("what grows", default="all", choices=("all", *DIMENSION_NAMES))
    stage: tuple[str, ...] = option("measure only this stage (may be repeated)", default=())
    largest: int | None = option(
        "largest size; default is 1,000,000 rollouts, 8,192 tokens, 256 responses, 500 steps", default=None
    )
    points: int = option("number of sizes, each a half of the next (rollouts: a quarter)", default=4)
    shape: str = option(
        "shape of the model that scores and samples, with random weights",
        default="tiny",
        choices=("tiny", "smollm2-135m"),
    )
    threads: int = option("number of threads", default=1)
    seed: int = option("seed of inputs, weights and draws", default=0)
    plot: Path | None = option("also draw seconds against size", default=None, metavar="FILE.svg")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What ``stepcredit bench growth`` prints."""

    growths: tuple[Growth, ...]
    shape: str

    def to_json(self) -> dict[str, Any]:
        """Every point, and the fitted exponents."""
        rows = [
            {
                "by": growth.dimension,
                "stage": growth.stage,
                "sizes": list(growth.sizes),
                "seconds": list(growth.seconds),
                "wall_seconds": [report.best_seconds for report in growth.reports],
                "working_mb": list(growth.megabytes),
                "time_exponent": growth.time_exponent,
                "memory_exponent": growth.memory_exponent,
            }
            for growth in self.growths
        ]
        return {"shape": self.shape, "growth": rows}

    def to_text(self) -> str:
        """A line per stage, with its largest point and its exponents."""
        lines = [
            f"{'grows':<10}{'stage':<10}{'largest':>12}{'processor s':>13}{'working MB':>12}"
            f"{'time ~ n^':>11}{'memory ~ n^':>13}"
        ]
        lines += [
            f"{growth.dimension:<10}{growth.stage:<10}{growth.sizes[-1]:>12,}{growth.seconds[-1]:>13.2f}"
            f"{growth.megabytes[-1]:>12.1f}{growth.time_exponent:>11.2f}{growth.memory_exponent:>13.2f}"
            for growth in self.growths
        ]
        return "\n".join(lines)


def run(options: Options) -> Result:
    """Measure, and draw."""
    from stepcredit.runs import Progress, atomic_path
    from stepcredit_bench.growing import DIMENSIONS, STAGES, measure

    check_at_least_one(options, "largest", "threads")
    if options.points < 2:
        raise UserError(f"must be at least 2, got {options.points}", where="--points")
    for name in options.stage:
        if name not in STAGES:
            raise UserError(f"{name!r} is no stage", where="--stage", hint=f"use {', '.join(STAGES)}")
    plan = [
        (name, stage, DIMENSIONS[name].sizes(options.largest or DIMENSIONS[name].largest, options.points))
        for name in (DIMENSIONS if options.by == "all" else (options.by,))
        for stage in DIMENSIONS[name].stages
        if not options.stage or stage in options.stage
    ]
    if any(sizes[0] < 1 for _, _, sizes in plan):
        raise UserError(f"has no room for {options.points} sizes", where="--largest", hint="raise it")
    with Progress("bench growth", options.points * len(plan), "runs", every=1.0) as progress:
        growths = tuple(
            measure(
                name,
                stage,
                sizes,
                shape=options.shape,
                seed=options.seed,
                threads=options.threads,
                on_turn=lambda name, seconds: progress.advance(extra=f"{name} took {seconds:.1f} s"),
            )
            for name, stage, sizes in plan
        )
    if options.plot is not None:
        with atomic_path(options.plot) as temporary:
            temporary.write_text(draw(growths), encoding="utf-8")
    return Result(growths=growths, shape=options.shape)


def draw(growths: tuple[Growth, ...]) -> str:
    """An SVG document: seconds against size, both as multiples of the smallest one's."""
    from stepcredit.reports.plots import Axis, Line, line_plot, standalone

    lines = [
        Line(
            name=f"{growth.stage} by {growth.dimension}: n^{growth.time_exponent:.2f}",
            x=[size / growth.sizes[0] for size in growth.sizes],
            y=[seconds / growth.seconds[0] for seconds in growth.seconds],
        )
        for growth in growths
    ]
    picture = line_plot(
        lines,
        title="Processor time as the input grows",
        x=Axis(label="times the smallest input", log2=True),
        y=Axis(label="times its processor seconds", log2=True, low=1.0),
        width=640,
        height=360,
        render=standalone,
    )
    return str(picture)
