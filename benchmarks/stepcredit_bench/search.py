"""What search saves by carrying the models' state from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepcredit.errors import UserError
from stepcredit.options import check_at_least_one, option
from stepcredit.searching.strategies import STRATEGIES

if TYPE_CHECKING:
    from stepcredit_bench.searching import SearchBenchmark


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit bench search``."""

    shape: str = option(
        "the lab's models, or models of this shape with random weights and the lab's vocabulary",
        default="lab",
        choices=("lab", "smollm2-135m", "tiny"),
    )
    strategy: str = option("search strategy", default="beam", choices=tuple(STRATEGIES))
    problems: int = option("number of problems, searched side by side", default=4)
    width: int = option("number of partial responses held at once", default=16)
    expand: int = option(
        "number of continuations of each kept partial response; must divide --width", default=4
    )
    max_new_tokens: int = option("largest number of tokens per response", default=64)
    turns: int = option("number of repetitions; the fastest counts", default=2)
    threads: int | None = option("number of threads; default is all processors", default=None)
    seed: int = option("seed of problems, samples and weights", default=0)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What ``stepcredit bench search`` prints."""

    benchmark: SearchBenchmark

    def to_json(self) -> dict[str, Any]:
        """Ratios, and each side's own numbers."""
        bench, work = self.benchmark, self.benchmark.work
        sides = {
            name: {
                **report.to_json(),
                "generated_tokens": report.outcome["generated_tokens"],
                "forwarded_tokens": report.outcome["forwarded_tokens"],
            }
            for name, report in bench.sides.items()
        }
        return {
            "speedup": bench.speedup,
            "token_ratio": bench.token_ratio,
            "same_trees": bench.same_trees,
            "largest_difference": bench.largest_difference,
            "sides": sides,
            "shape": work.shape,
            "strategy": work.strategy,
            "problems": work.num_problems,
            "width": work.width,
            "expand": work.expand,
            "max_new_tokens": work.max_new_tokens,
            "threads": bench.threads,
        }

    def to_text(self) -> str:
        """A table of the sides and a line with the ratios."""
        bench, work = self.benchmark, self.benchmark.work
        lines = [
            f"{work.strategy}, width {work.width}, {work.num_problems} problems of the lab, models: "
            f"{work.shape}, {bench.threads} threads",
            f"{'side':<12}{'seconds':>10}{'generated':>12}{'forwarded':>12}{'peak MB':>10}",
        ]
        for name, report in bench.sides.items():
            outcome = report.outcome
            lines.append(
                f"{name:<12}{report.best_seconds:>10.2f}{outcome['generated_tokens']:>12,}"
                f"{outcome['forwarded_tokens']:>12,}{report.peak_mb:>10.0f}"
            )
        same = "the same trees" if bench.same_trees else "other trees"
        lines.append(
            f"state: {bench.speedup:.2f} x the speed, 1/{bench.token_ratio:.2f} of the tokens through the "
            f"models; {same}, worths within {bench.largest_difference:.2g}"
        )
        return "\n".join(lines)


def run(options: Options) -> Result:
    """Measure."""
    import os

    from stepcredit.runs import Progress
    from stepcredit_bench.searching import SearchWork, run_search_benchmark

    check_at_least_one(options, "problems", "width", "expand", "max_new_tokens", "turns", "threads")
    if options.width % options.expand:
        raise UserError(f"{options.width} is not a multiple of --expand {options.expand}", where="--width")
    with Progress("bench search", options.turns * 2, "turns", every=1.0) as progress:
        benchmark = run_search_benchmark(
            SearchWork(
                shape=options.shape,
                strategy=options.strategy,
                num_problems=options.problems,
                width=options.width,
                expand=options.expand,
                max_new_tokens=options.max_new_tokens,
                seed=options.seed,
            ),
            turns=options.turns,
            threads=options.threads or os.cpu_count() or 1,
            on_turn=lambda name, seconds: progress.advance(extra=f"{name} took {seconds:.1f} s"),
        )
    return Result(benchmark=benchmark)
