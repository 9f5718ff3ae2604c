"""Speed and memory of sampling, beside vLLM, ``transformers.generate`` and its continuous batching."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.errors import UserError
from stepcredit.options import check_at_least_one, option
from stepcredit.wording import quantity

if TYPE_CHECKING:
    from stepcredit_bench.sampling import SampleBenchmark, SampleWork


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit bench sample``."""

    shape: str = option(
        "model shape, with random weights; tiny only checks that it runs",
        default="smollm2-135m",
        choices=("smollm2-135m", "tiny"),
    )
    model: str | None = option(
        "a real policy of that shape in place of random weights; requires --data", default=None
    )
    data: Path | None = option(
        "file of prompts for --model, or reasoning-gym:TASK", default=None, metavar="FILE"
    )
    prompts: int = option("number of prompts", default=2)
    prompt_tokens: int | None = option("tokens of each prompt; default is 70 to 90", default=None)
    samples: int = option("number of responses to each", default=64)
    max_new_tokens: int = option("tokens of each response", default=32)
    top_p: float = option("draw from the likeliest tokens that make up this probability", default=1.0)
    dtype: str = option(
        "number format of weights and products", default="float32", choices=("float32", "bfloat16")
    )
    vllm: Path | None = option(
        "folder of vLLM's environment, made by scripts/vllm_environment.sh; without it vLLM is left out",
        default=None,
        metavar="DIR",
    )
    turns: int = option("number of repetitions; the fastest counts", default=1)
    threads: int | None = option("number of threads; default is all processors", default=None)
    seed: int = option("seed of prompts, weights and draws", default=0)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What ``stepcredit bench sample`` prints."""

    benchmark: SampleBenchmark

    def to_json(self) -> dict[str, Any]:
        """Ratios, and each engine's own numbers."""
        bench, work = self.benchmark, self.benchmark.work
        sides = {
            name: {
                "tokens_per_second": bench.tokens_per_second(name),
                "tokens_per_second_with_start": bench.tokens_per_second(name, with_start=True),
                "tokens_per_cpu_second": report.outcome["tokens"] / bench.cpu_seconds(name),
                "seconds": list(report.seconds),
                "cpu_seconds": bench.cpu_seconds(name),
                "start_seconds": report.outcome["start_seconds"],
                "first_row_seconds": report.outcome["first_row_seconds"],
                "peak_mb": bench.peak_mb(name),
                "utilisation": bench.utilisation(name),
            }
            for name, report in bench.sides.items()
        }
        return {
            "speedup": {
                name: bench.cpu_seconds(name) / bench.cpu_seconds("ours") for name in sides if name != "ours"
            },
            "engines": sides,
            "failures": dict(bench.failures),
            "products_per_second": bench.products_per_second,
            "operations": work.operations(bench.sides["ours"].outcome["tokens"]),
            "shape": work.shape,
            "prompts": work.num_prompts,
            "prompt_tokens": list(work.prompt_tokens),
            "samples": work.samples,
            "max_new_tokens": work.max_new_tokens,
            "tokens_drawn": {name: report.outcome["tokens"] for name, report in bench.sides.items()},
            "top_p": work.top_p,
            "random_weights": not work.questions,
            "dtype": work.dtype,
            "threads": work.threads,
        }

    def to_text(self) -> str:
        """A table of the engines."""
        bench, work = self.benchmark, self.benchmark.work
        lengths = " to ".join(map(str, sorted(set(work.prompt_tokens))))
        weights = "" if work.questions else " with random weights"
        lines = [
            f"{quantity(work.num_prompts, 'prompt')} of {lengths} tokens x "
            f"{quantity(work.samples, 'sample')} x "
            f"{quantity(work.max_new_tokens, 'token')}, {work.shape}{weights}, {work.dtype}, "
            f"{quantity(work.threads, 'thread')}",
            f"{'engine':<21}{'tokens/s':>10}{'with start':>12}{'first row s':>13}{'processor s':>13}"
            f"{'peak MB':>9}{'of products':>13}",
        ]
        for name, report in bench.sides.items():
            lines.append(
                f"{name:<21}{bench.tokens_per_second(name):>10.1f}"
                f"{bench.tokens_per_second(name, with_start=True):>12.1f}"
                f"{report.outcome['first_row_seconds']:>13.2f}{bench.cpu_seconds(name):>13.2f}"
                f"{bench.peak_mb(name):>9.0f}{bench.utilisation(name):>13.0%}"
            )
        lines += [f"{name} failed: {reason}" for name, reason in bench.failures.items()]
        return "\n".join(lines)


def run(options: Options) -> Result:
    """Measure."""
    import os
    import tempfile

    from stepcredit.runs import Progress
    from stepcredit_bench.sampling import run_sample_benchmark, write_policy
    from stepcredit_bench.vllm_engine import vllm_python

    check_at_least_one(options, "prompts", "prompt_tokens", "samples", "max_new_tokens", "turns", "threads")
    if not 0 < options.top_p <= 1:
        raise UserError(f"must be above 0 and at most 1, got {options.top_p}", where="--top-p")
    vllm = None if options.vllm is None else vllm_python(options.vllm)
    turns = options.turns * (3 + (vllm is not None)) + 1
    with (
        tempfile.TemporaryDirectory(prefix="bench-sample-") as folder,
        Progress("bench sample", turns, "turns", every=1.0) as progress,
    ):
        work = _work(options, folder, threads=options.threads or os.cpu_count() or 1)
        if options.model is None:
            write_policy(Path(folder), options.shape, seed=options.seed + 1, dtype=options.dtype)
        benchmark = run_sample_benchmark(
            work,
            vllm=vllm,
            turns=options.turns,
            on_turn=lambda name, seconds: progress.advance(extra=f"{name} took {seconds:.1f} s"),
        )
    return Result(benchmark=benchmark)


def _work(options: Options, folder: str, *, threads: int) -> SampleWork:
    """What is drawn; random weights are to be written to ``folder``.

    Raises:
        UserError: Options contradict each other, or do not fit the model.
    """
    from dataclasses import replace

    from stepcredit.generators.plan import Plan
    from stepcredit_bench.sampling import SampleWork, check_shape
    from stepcredit_bench.workload import CONTEXT_LENGTH, PROMPT_TOKENS

    if (options.model is None) != (options.data is None):
        raise UserError("go together", where="--model and --data")
    work = SampleWork(
        model=folder if options.model is None else options.model,
        shape=options.shape,
        num_prompts=options.prompts,
        prompt_tokens=PROMPT_TOKENS if options.prompt_tokens is None else (options.prompt_tokens,) * 2,
        samples=options.samples,
        max_new_tokens=options.max_new_tokens,
        top_p=options.top_p,
        dtype=options.dtype,
        threads=threads,
        seed=options.seed,
    )
    if options.data is not None:
        if options.prompt_tokens is not None:
            raise UserError("is for random prompts", where="--prompt-tokens", hint="leave it out with --data")
        check_shape(work.model, work.shape)
        questions = tuple(Plan.read(options.data, limit=options.prompts).prompts())
        work = replace(work, questions=questions, num_prompts=len(questions))
        lengths = [len(prompt) for prompt in work.prompts()]
        work = replace(work, prompt_tokens=(min(lengths), max(lengths)))
    if work.prompt_tokens[1] + work.max_new_tokens > CONTEXT_LENGTH:
        raise UserError(
            f"prompts of {work.prompt_tokens[1]} tokens and responses of {work.max_new_tokens} do not fit "
            f"into the model's {CONTEXT_LENGTH}",
            hint="lower --prompt-tokens or --max-new-tokens",
        )
    return work
