"""Time and memory of training, beside TRL's trainer and a plain PyTorch loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepcredit.errors import UserError
from stepcredit.options import check_at_least_one, option
from stepcredit.wording import quantity

if TYPE_CHECKING:
    from stepcredit_bench.training_report import TrainBenchmark

NOTE = "on a CPU the head of TRL's trainer runs in float32, so a part of the ratio to TRL is the CPU's"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit bench train``."""

    shape: str = option(
        "model shape, with random weights; tiny only checks that it runs",
        default="smollm2-135m",
        choices=("smollm2-135m", "tiny"),
    )
    workload: str = option(
        "pairs: preference pairs that each have a prompt of their own; group: several responses to each "
        "prompt, half of them right, in all pairs of a right and a wrong one, at most 16",
        default="pairs",
        choices=("pairs", "group"),
    )
    objective: str = option(
        "training objective; ce trains on the responses of groups", default="dpo", choices=("dpo", "ce")
    )
    steps: int = option("optimizer steps per run", default=3)
    batch_size: int | None = option("prompts per step; default is 8 for pairs, 1 for groups", default=None)
    responses: int = option("group: number of responses to each prompt", default=8)
    others_per_pass: int = option(
        "pairs (responses for ce) per forward pass for the other trainers, at most; TRL's default is 8",
        default=8,
    )
    turns: int = option("number of repetitions; the fastest counts", default=2)
    threads: int | None = option("number of threads; default is all processors", default=None)
    precision: str = option(
        "number format of products; weights and optimizer are float32",
        default="bfloat16",
        choices=("float32", "bfloat16"),
    )
    learning_rate: float = option("constant learning rate", default=1e-5)
    beta: float = option("scale of the log-ratio", default=0.1)
    tokens_per_forward: int | None = option(
        "largest number of tokens per forward pass of stepcredit; default is chosen as in training",
        default=None,
    )
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
                ratios[f"processor_ratio_vs_{name}"] = bench.processor_ratio(name)
                ratios[f"memory_ratio_vs_{name}"] = bench.memory_ratio(name)
                ratios[f"largest_loss_difference_vs_{name}"] = bench.largest_loss_difference(name)
        sides = {
            name: {
                **report.to_json(),
                "tokens_per_second": bench.tokens_per_second(name),
                "units_per_second": bench.units_per_second(name),
                "operations": bench.operations(name),
                "utilisation": bench.utilisation(name),
                "losses": report.outcome["losses"],
            }
            for name, report in bench.sides.items()
        }
        work = bench.work
        return {
            **ratios,
            "sides": sides,
            **bench.rates,
            "bytes": bench.bytes_moved,
            "predicted_seconds": bench.predicted_seconds(),
            "shape": work.shape,
            "workload": work.workload,
            "objective": work.objective,
            "steps": work.steps,
            f"{work.unit}s_per_step": work.units_per_step,
            "others_per_pass": work.others_per_pass,
            "tokens_per_forward": bench.sides["ours"].outcome["tokens_per_forward"],
            "passes": bench.sides["ours"].outcome["passes"],
            "tokens": work.num_tokens,
            "precision": work.precision,
            "threads": bench.threads,
            "note": NOTE,
        }

    def to_text(self) -> str:
        """A table of the sides and a line per ratio."""
        bench, work = self.benchmark, self.benchmark.work
        lines = [
            f"{work.objective.upper()}, {quantity(work.steps, 'step')} of "
            f"{quantity(work.units_per_step, work.unit)}, {work.num_tokens:,} tokens, {work.shape}, "
            f"{work.precision}, {quantity(bench.threads, 'thread')}",
            f"{'side':<12}{work.unit + 's/s':>12}{'tokens/s':>10}{'seconds':>10}"
            f"{'processor':>10}{'peak MB':>10}{'of limit':>10}   losses",
        ]
        for name, report in bench.sides.items():
            losses = " ".join(f"{loss:.4f}" for loss in report.outcome["losses"])
            lines.append(
                f"{name:<12}{bench.units_per_second(name):>12.3g}{bench.tokens_per_second(name):>10.0f}"
                f"{report.best_seconds:>10.1f}{min(report.cpu_seconds):>10.1f}{report.peak_mb:>10.0f}"
                f"{bench.utilisation(name):>10.0%}   {losses}"
            )
        lines += [
            f"against {name}: {bench.speedup(name):.2f} x the speed ({bench.processor_ratio(name):.2f} x in "
            f"processor time), {bench.memory_ratio(name):.2f} of the memory, losses within "
            f"{bench.largest_loss_difference(name):.2g}"
            for name in bench.sides
            if name != "ours"
        ]
        lines.append(
            f"limit: {bench.rates['products_per_second'] / 1e9:.1f} billion operations per second in the "
            f"model's products alone, {bench.rates['bytes_per_second'] / 1e9:.1f} GB per second copied; so "
            f"stepcredit's {bench.operations('ours'):.3g} operations and {bench.bytes_moved:.3g} bytes "
            f"take {bench.predicted_seconds():.1f} s"
        )
        return "\n".join([*lines, NOTE])


def run(options: Options) -> Result:
    """Measure."""
    import os

    from stepcredit.runs import Progress
    from stepcredit_bench.training_report import run_train_benchmark, sides_of
    from stepcredit_bench.training_work import TrainWork

    counts = ("steps", "batch_size", "turns", "threads", "tokens_per_forward", "responses", "others_per_pass")
    check_at_least_one(options, *counts)
    if options.responses % 2:
        raise UserError(
            f"must be even, got {options.responses}", where="--responses", hint="half of them are right"
        )
    work = TrainWork(
        shape=options.shape,
        workload=options.workload,
        objective=options.objective,
        steps=options.steps,
        batch_size=options.batch_size or (8 if options.workload == "pairs" else 1),
        responses=options.responses,
        others_per_pass=options.others_per_pass,
        learning_rate=options.learning_rate,
        beta=options.beta,
        tokens_per_forward=options.tokens_per_forward,
        precision=options.precision,
        seed=options.seed,
    )
    if work.units_per_step % min(work.others_per_pass, work.units_per_step):
        raise UserError(
            f"{quantity(work.units_per_step, work.unit)} per step cannot be divided into passes of "
            f"{work.others_per_pass}",
            where="--others-per-pass",
            hint="choose a divisor",
        )
    turns = options.turns * (len(sides_of(work)) + 1)
    with Progress("bench train", turns, "turns", every=1.0) as progress:
        benchmark = run_train_benchmark(
            work,
            turns=options.turns,
            threads=options.threads or os.cpu_count() or 1,
            on_turn=lambda name, seconds: progress.advance(extra=f"{name} took {seconds:.1f} s"),
        )
    return Result(benchmark=benchmark)
