"""Sampling beside other engines: the same weights, prompts, samples and lengths, each in its own process."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stepcredit.checkpoints import LoadOptions, load_config, load_model, load_tokenizer
from stepcredit.errors import UserError
from stepcredit.generators.prompts import PromptFormat
from stepcredit.generators.transformers import TransformersGenerator
from stepcredit.logprobs.float32_products import fit_to_processor, needs_float32
from stepcredit.types import GenerationRequest, Prompt, Rollout, Sampling
from stepcredit_bench.limit import ProductsSide, Work, forward_operations
from stepcredit_bench.processes import Side, SideReport, compare, process_age
from stepcredit_bench.vllm_engine import VllmEngine
from stepcredit_bench.workload import (
    CONTEXT_LENGTH,
    PROMPT_TOKENS,
    SHAPES,
    never_ends,
    random_model,
    response_groups,
    word_tokenizer,
)

END_TOKEN = 2
_PAGE_TOKENS, _BATCH_TOKENS = 32, 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleWork:
    """What every engine draws.

    Attributes:
        model: Directory of the policy.
        shape: Name in :data:`~stepcredit_bench.workload.SHAPES`.
        num_prompts: How many prompts.
        prompt_tokens: Fewest and most tokens of a prompt.
        samples: Responses to each.
        max_new_tokens: Tokens of each response, at most; a random model ends none before.
        top_p: Nucleus that is drawn from.
        questions: What real prompts ask; without them prompts are random tokens.
        dtype: Format of weights and products.
        device: Where models run.
        threads: Threads of each engine.
        seed: Of prompts and draws.
    """

    model: str
    shape: str = "smollm2-135m"
    num_prompts: int = 2
    prompt_tokens: tuple[int, int] = PROMPT_TOKENS
    samples: int = 64
    max_new_tokens: int = 32
    top_p: float = 1.0
    questions: tuple[Prompt, ...] = ()
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 1
    seed: int = 0

    def prompts(self) -> list[list[int]]:
        """Token ids of each prompt."""
        if self.questions:
            template = PromptFormat(load_tokenizer(self.model))
            return [list(template.opening(question.prompt).token_ids) for question in self.questions]
        groups = response_groups(
            self.shape,
            num_groups=self.num_prompts,
            responses_per_group=1,
            prompt_tokens=self.prompt_tokens,
            seed=self.seed,
        )
        return [list(group[0].token_ids[: group[0].scored_start]) for group in groups]

    @property
    def num_tokens(self) -> int:
        """Tokens that an engine draws in a turn, at most."""
        return self.num_prompts * self.samples * self.max_new_tokens

    def end_tokens(self) -> set[int]:
        """Those that end a response."""
        return PromptFormat(load_tokenizer(self.model)).end_of_turn_ids()

    def operations(self, tokens: int | None = None) -> float:
        """Floating-point operations of matrix products, each prompt read once and nothing else shared.

        Args:
            tokens: Drawn in all, by responses of about equal length; default is the most.
        """
        total = 0.0
        per_response = (tokens or self.num_tokens) / (self.num_prompts * self.samples)
        for prompt in self.prompts():
            length, drawn = len(prompt), round(per_response) - 1
            attended = drawn * length + drawn * (drawn + 1) // 2
            own = Work(tokens=drawn, scored=drawn, attended=attended)
            read = Work(tokens=length, scored=1, attended=length * (length + 1) // 2)
            total += forward_operations(self.shape, read)
            total += self.samples * forward_operations(self.shape, own)
        return total


def write_policy(folder: Path, shape: str, *, seed: int, dtype: str, device: str = "cpu") -> None:
    """A policy with random weights that hardly ever ends its turn; its tokenizer's words are tokens."""
    model = never_ends(random_model(shape, seed=seed, dtype=dtype, device=device), END_TOKEN)
    model.generation_config.update(eos_token_id=END_TOKEN, pad_token_id=0)
    model.save_pretrained(folder)
    word_tokenizer(SHAPES[shape]["vocab_size"]).save_pretrained(folder)


def check_shape(model: str, shape: str) -> None:
    """Refuse a model of another shape, whose operations would be miscounted.

    Raises:
        UserError: A size differs.
    """
    config = load_config(model)
    for name, size in SHAPES[shape].items():
        if (actual := getattr(config, name, None)) != size:
            raise UserError(
                f"its {name} is {actual}, that of {shape} is {size}",
                where=model,
                hint="take a model of that shape",
            )


class _SampleSide(ABC):
    """Draws all samples; a turn's outcome has its tokens, the time of its first row and that of the start."""

    def __init__(self, work: SampleWork) -> None:
        self.work = work

    def load(self) -> None:
        options = LoadOptions(dtype=self.work.dtype, device=self.work.device)
        self.model: Any = load_model(self.work.model, options)
        self.prompts = self.work.prompts()
        self.ends = self.work.end_tokens()
        self.start_seconds = process_age()

    def warm_up(self) -> None:
        tokens = torch.tensor(self.prompts[:1], device=self.work.device)
        with torch.inference_mode():
            self.model(tokens, use_cache=False)

    def prepare(self) -> None:
        torch.manual_seed(self.work.seed)

    def run(self) -> dict[str, Any]:
        self.start = time.perf_counter()
        self.first: float | None = None
        tokens = self.draw()
        first = time.perf_counter() - self.start if self.first is None else self.first
        return {"tokens": tokens, "first_row_seconds": first, "start_seconds": self.start_seconds}

    def note_row(self) -> None:
        """A response is whole."""
        if self.first is None:
            self.first = time.perf_counter() - self.start

    @abstractmethod
    def draw(self) -> int:
        """Draw everything; the number of tokens."""


class OurSide(_SampleSide):
    """Each prompt read once; samples that agree so far are one row."""

    def load(self) -> None:
        """The policy, as ``stepcredit sample`` runs it."""
        super().load()
        fit_to_processor(self.model)

    def draw(self) -> int:
        tokenizer = load_tokenizer(self.work.model)
        generator = TransformersGenerator(self.model, tokenizer, name="random")
        sampling = Sampling(
            max_new_tokens=self.work.max_new_tokens, top_p=self.work.top_p, seed=self.work.seed
        )
        questions = self.work.questions or [
            Prompt(id=str(number), prompt=" ".join(f"t{token}" for token in prompt))
            for number, prompt in enumerate(self.prompts)
        ]
        requests = [
            GenerationRequest(prompt=question, indices=tuple(range(self.work.samples)), sampling=sampling)
            for question in questions
        ]
        for row in generator.generate(requests):
            assert isinstance(row, Rollout), row
            self.note_row()
        return generator.ledger.generated_tokens


class GenerateSide(_SampleSide):
    """``transformers.generate``, a prompt's samples in one batch."""

    def draw(self) -> int:
        tokens = 0
        for prompt in self.prompts:
            ids = torch.tensor([prompt], device=self.work.device)
            drawn = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=self.work.top_p,
                num_return_sequences=self.work.samples,
                max_new_tokens=self.work.max_new_tokens,
            )
            tokens += sum(_drawn(row, self.ends) for row in drawn[:, len(prompt) :].tolist())
            self.note_row()
        return tokens


class ContinuousSide(_SampleSide):
    """transformers' continuous batching."""

    def draw(self) -> int:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        config = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=self.work.top_p,
            max_new_tokens=self.work.max_new_tokens,
            eos_token_id=sorted(self.ends),
            pad_token_id=0,
        )
        rows = [prompt for prompt in self.prompts for _ in range(self.work.samples)]
        pages = sum(-(-(len(row) + self.work.max_new_tokens) // _PAGE_TOKENS) for row in rows)
        outputs = self.model.generate_batch(
            rows,
            generation_config=config,
            # By default the cache takes most of the machine's memory.
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=_PAGE_TOKENS, num_blocks=pages + 1, max_batch_tokens=_BATCH_TOKENS
            ),
            progress_bar=False,
        )
        return sum(len(output.generated_tokens) for output in outputs.values())


def _drawn(response: Sequence[int], ends: set[int]) -> int:
    """Tokens up to the first that ends a response, and with it."""
    return next((place for place, token in enumerate(response, start=1) if token in ends), len(response))


class VllmSide:
    """vLLM's engine in a process of its own environment; this process only asks it."""

    def __init__(self, work: SampleWork, python: Path) -> None:
        self.work, self.python = work, python

    def load(self) -> None:
        """Start the engine."""
        work = self.work
        settings = {
            "model": work.model,
            "dtype": work.dtype,
            "threads": work.threads,
            "context": CONTEXT_LENGTH,
            "prompts": work.prompts(),
            "samples": work.samples,
            "max_new_tokens": work.max_new_tokens,
            "top_p": work.top_p,
            "end_tokens": sorted(work.end_tokens()),
        }
        self.engine = VllmEngine(self.python, settings)

    def warm_up(self) -> None:
        """Starting did it."""

    def prepare(self) -> None:
        """Nothing to bring about."""

    def run(self) -> dict[str, Any]:
        """Draw everything."""
        return self.engine.ask("sample") | {"start_seconds": self.engine.start_seconds}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBenchmark:
    """How fast and in how much memory each engine drew.

    Attributes:
        work: What was drawn.
        sides: Reports by engine.
        products_per_second: Operations per second of the model's products on their own.
        failures: Engines that failed, with the last line of why.
    """

    work: SampleWork
    sides: Mapping[str, SideReport]
    products_per_second: float
    failures: Mapping[str, str]

    def tokens_per_second(self, name: str, *, with_start: bool = False) -> float:
        """Drawn tokens by wall-clock seconds of the fastest turn, with those of the start where asked."""
        report = self.sides[name]
        start = report.outcome["start_seconds"] if with_start else 0.0
        return float(report.outcome["tokens"] / (report.best_seconds + start))

    def cpu_seconds(self, name: str) -> float:
        """Processor seconds of the cheapest turn, in the process that did the work."""
        report = self.sides[name]
        return float(report.outcome.get("cpu_seconds", min(report.cpu_seconds)))

    def peak_mb(self, name: str) -> float:
        """Peak memory (MiB) of the process that did the work."""
        report = self.sides[name]
        return float(report.outcome.get("peak_mb", report.peak_mb))

    def utilisation(self, name: str) -> float:
        """Share of the products' own rate that an engine reaches, by processor seconds."""
        seconds = self.cpu_seconds(name) / self.work.threads
        operations = self.work.operations(self.sides[name].outcome["tokens"])
        return operations / seconds / self.products_per_second


def run_sample_benchmark(
    work: SampleWork, *, vllm: Path | None, turns: int, on_turn: Callable[[str, float], None]
) -> SampleBenchmark:
    """Let the engines draw one after the other; one that fails is reported and the others go on.

    Args:
        work: What to draw.
        vllm: Interpreter of vLLM's environment; ``None`` leaves vLLM out.
        turns: Turns of each engine.
        on_turn: Called after each turn.
    """
    sides: dict[str, Callable[[], Side]] = {
        "ours": partial(OurSide, work),
        "generate": partial(GenerateSide, work),
        "continuous batching": partial(ContinuousSide, work),
    }
    if vllm is not None:
        sides["vllm"] = partial(VllmSide, work, vllm)
    reports: dict[str, SideReport] = {}
    failures: dict[str, str] = {}
    for name, side in sides.items():
        try:
            reports |= compare({name: side}, turns=turns, threads=work.threads, on_turn=on_turn)
        except RuntimeError as error:
            if name == "ours":
                raise
            failures[name] = str(error).strip().splitlines()[-1]
    products = partial(
        ProductsSide,
        work.shape,
        rows=work.samples * work.num_prompts,
        dtype="float32" if needs_float32(work.dtype, work.device) else work.dtype,
        backward=False,
    )
    rate = compare({"products": products}, turns=1, threads=work.threads, on_turn=on_turn)["products"]
    return SampleBenchmark(
        work=work,
        sides=reports,
        products_per_second=rate.outcome["products_per_second"],
        failures=failures,
    )
