"""Time and memory of training with DPO, beside TRL's trainer and a plain PyTorch loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepcredit.options import check_at_least_one, option

if TYPE_CHECKING:
    from stepcredit_bench.training import TrainBenchmark

NOTE = "on a CPU the head of TRL's trainer runs in float32, so a part of the ratio to TRL is the CPU's"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit bench train``."""

    shape: str = option(
        "model shape, with random weights; tiny only checks that it runs",
        default="smollm2-135m",
        choices=("smollm2-135m", "tiny"),
    )
    steps: int = option("optimizer steps per run", default=3)
    batch_size: int = option("preference pairs per step", default=8)
    turns: int = option("how many times each side runs; the fastest counts", default=2)
    threads: int | None = option("number of threads; default is all processors", default=None)
    precision: str = option(
        "number format of products; weights and optimizer are float32",
        default="bfloat16",
        choices=("float32", "bfloat16"),
    )
    learning_rate: float = option("constant learning rate", default=1e-5)
    beta: float = option("scale of the log-ratio", default=0.1)
    tokens_per_forward: int = option("largest number of tokens per forward pass of stepcredit", default=1280)
    seed: int = option("seed of tokens and weights", default=0)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What ``stepcredit bench train`` prints."""

    benchmark: TrainBenchmark

    def to_json(self) -> dict[str, Any]:
        """Ratios, and each side's own numbers."""
        bench = self.benchmark
        ratios: dict[str, float] = {}
        for name in bench.sides:
            if name != "ours":
                ratios[f"speedup_vs_{name}"] = bench.speedup(name)
                ratios[f"memory_ratio_vs_{name}"] = bench.memory_ratio(name)
                ratios[f"largest_loss_difference_vs_{name}"] = bench.largest_loss_difference(name)
        sides = {
            name: {
                **report.to_json(),
                "tokens_per_second": bench.tokens_per_second(name),
                "losses": report.outcome["losses"],
            }
            for name, report in bench.sides.items()
        }
        work = bench.work
        return {
            **ratios,
            "sides": sides,
            "shape": work.shape,
            "steps": work.steps,
            "pairs_per_step": work.batch_size,
            "tokens": work.num_tokens,
            "precision": work.precision,
            "threads": bench.threads,
            "note": NOTE,
        }

    def to_text(self) -> str:
        """A table of the sides and a line per ratio."""
        bench, work = self.benchmark, self.benchmark.work
        lines = [
            f"DPO, {work.steps} steps of {work.batch_size} pairs, {work.num_tokens:,} tokens, {work.shape}, "
            f"{work.precision}, {bench.threads} threads",
            f"{'side':<12}{'tokens/s':>10}{'seconds':>10}{'peak MB':>10}   losses",
        ]
        for name, report in bench.sides.items():
            losses = " ".join(f"{loss:.4f}" for loss in report.outcome["losses"])
            lines.append(
                f"{name:<12}{bench.tokens_per_second(name):>10.0f}{report.best_seconds:>10.1f}"
                f"{report.peak_mb:>10.0f}   {losses}"
            )
        lines += [
            f"against {name}: {bench.speedup(name):.2f} x the speed, {bench.memory_ratio(name):.2f} of the "
            f"memory, losses within {bench.largest_loss_difference(name):.2g}"
            for name in bench.sides
            if name != "ours"
        ]
        return "\n".join([*lines, NOTE])


def run(options: Options) -> Result:
    """Measure."""
    import os

    from stepcredit.runs import Progress
    from stepcredit_bench.training import TrainWork, run_train_benchmark

    check_at_least_one(options, "steps", "batch_size", "turns", "threads", "tokens_per_forward")
    with Progress("bench train", options.turns * 3, "turns", every=1.0) as progress:
        benchmark = run_train_benchmark(
            TrainWork(
                shape=options.shape,
                steps=options.steps,
                batch_size=options.batch_size,
                learning_rate=options.learning_rate,
                beta=options.beta,
                tokens_per_forward=options.tokens_per_forward,
                precision=options.precision,
                seed=options.seed,
            ),
            turns=options.turns,
            threads=options.threads or os.cpu_count() or 1,
            on_turn=lambda name, seconds: progress.advance(extra=f"{name} took {seconds:.1f} s"),
        )
    return Result(benchmark=benchmark)
