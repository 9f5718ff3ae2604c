"""Time and memory of scoring responses, beside the published evaluator and vLLM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.options import check_at_least_one, option

if TYPE_CHECKING:
    from stepcredit_bench.scoring import ScoreBenchmark

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit bench score``."""

    shape: str = option(
        "model shape, with random weights; tiny only checks that it runs",
        default="smollm2-135m",
        choices=("smollm2-135m", "tiny"),
    )
    groups: int = option("number of prompts", default=1)
    responses: int = option("number of responses to each prompt", default=64)
    turns: int = option("number of repetitions; the fastest counts", default=2)
    threads: int | None = option("number of threads; default is all processors", default=None)
    dtype: str = option(
        "number format of stepcredit's weights and products", default="bfloat16", choices=DTYPES
    )
    published_dtype: str = option(
        "number format of the published side; float32 is what transformers loaded by default "
        "when it was published",
        default="float32",
        choices=DTYPES,
    )
    vllm: Path | None = option(
        "folder of vLLM's environment, made by scripts/vllm_environment.sh; without it vLLM is left out",
        default=None,
        metavar="DIR",
    )
    seed: int = option("seed of tokens and weights", default=0)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What ``stepcredit bench score`` prints."""

    benchmark: ScoreBenchmark

    def to_json(self) -> dict[str, Any]:
        """Ratios, and each side's own numbers.

        ``memory_ratio`` compares what the work takes beyond libraries and loaded weights, which no way of
        scoring can avoid; ``total_memory_ratio`` compares whole processes.
        """
        bench = self.benchmark
        sides = {
            name: {
                **report.to_json(),
                "cpu_seconds": bench.cpu_seconds(name),
                "peak_mb": bench.peak_mb(name),
                "responses_per_second": bench.num_responses / report.best_seconds,
                "scored_tokens_per_second": bench.num_scored / report.best_seconds,
            }
            for name, report in bench.sides.items()
        }
        ratios: dict[str, float] = {}
        for name in bench.sides:
            if name != "ours":
                ratios[f"speedup_vs_{name}"] = bench.speedup(name)
                ratios[f"cpu_speedup_vs_{name}"] = bench.cpu_seconds(name) / bench.cpu_seconds("ours")
                if name != "vllm":  # its weights are loaded together with what it works with
                    ratios[f"memory_ratio_vs_{name}"] = bench.memory_ratio(name)
                ratios[f"total_memory_ratio_vs_{name}"] = bench.total_memory_ratio(name)
                ratios[f"largest_difference_vs_{name}"] = bench.largest_difference(name)
        return {
            **ratios,
            "sides": sides,
            "operations": bench.operations,
            "products_per_second": bench.products_per_second,
            "utilisation": bench.utilisation,
            "shape": bench.work.shape,
            "responses": bench.num_responses,
            "scored_tokens": bench.num_scored,
            "dtype": bench.dtype,
            "published_dtype": bench.published_dtype,
            "threads": bench.threads,
        }

    def to_text(self) -> str:
        """A table of the sides and a line per ratio."""
        bench = self.benchmark
        lines = [
            f"{bench.num_responses} responses, {bench.num_scored:,} scored tokens, {bench.work.shape}, "
            f"{bench.threads} threads; ours in {bench.dtype}, published in {bench.published_dtype}",
            f"{'side':<22}{'responses/s':>12}{'seconds':>10}{'peak MB':>10}{'working MB':>12}",
        ]
        for name, report in bench.sides.items():
            lines.append(
                f"{name:<22}{bench.num_responses / report.best_seconds:>12.2f}{report.best_seconds:>10.1f}"
                f"{bench.peak_mb(name):>10.0f}{report.working_mb:>12.0f}"
            )
        for name in bench.sides:
            if name == "ours":
                continue
            memory = f"{bench.total_memory_ratio(name):.2f} of the memory"
            if name != "vllm":
                memory += f" ({bench.memory_ratio(name):.2f} beyond libraries and weights)"
            cheaper = bench.cpu_seconds(name) / bench.cpu_seconds("ours")
            lines.append(
                f"against {name}: {bench.speedup(name):.2f} x the speed, "
                f"1/{cheaper:.2f} of the processor time, {memory}, "
                f"log-ratios within {bench.largest_difference(name):.2g} nats per token"
            )
        lines.append(f"ours reaches {bench.utilisation:.0%} of the rate of its matrix products alone")
        return "\n".join(lines)


def run(options: Options) -> Result:
    """Measure."""
    import os

    from stepcredit.runs import Progress
    from stepcredit_bench.scoring import ScoreWork, run_score_benchmark
    from stepcredit_bench.vllm_engine import vllm_python

    check_at_least_one(options, "groups", "responses", "turns", "threads")
    vllm = None if options.vllm is None else vllm_python(options.vllm)
    sides = 3 + (options.dtype != options.published_dtype) + (vllm is not None)
    with Progress("bench score", options.turns * sides, "turns", every=1.0) as progress:
        benchmark = run_score_benchmark(
            ScoreWork(
                shape=options.shape,
                num_groups=options.groups,
                responses_per_group=options.responses,
                seed=options.seed,
            ),
            dtype=options.dtype,
            published_dtype=options.published_dtype,
            vllm=vllm,
            turns=options.turns,
            threads=options.threads or os.cpu_count() or 1,
            on_turn=lambda name, seconds: progress.advance(extra=f"{name} took {seconds:.1f} s"),
        )
    return Result(benchmark=benchmark)
