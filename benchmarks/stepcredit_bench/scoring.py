"""Scoring beside the way of the published evaluator of arXiv:2412.01981.

That way: two sequences a batch, padded to the longer; the policy's and then the reference's logits at all
positions; log-softmax over the whole vocabulary; gather.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stepcredit.logprobs import LocalTokenLogProbs, pad
from stepcredit.logprobs.float32_products import fit_to_processor, needs_float32
from stepcredit.types import Encoded
from stepcredit_bench.limit import ProductsSide, forward_operations, shared_work
from stepcredit_bench.processes import Side, SideReport, compare
from stepcredit_bench.vllm_engine import VllmEngine
from stepcredit_bench.workload import CONTEXT_LENGTH, random_model, response_groups

PUBLISHED_BATCH = 2
PRODUCT_ROWS = 2048
"""Positions of a forward pass on a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreWork:
    """What both sides score.

    Attributes:
        shape: Name in :data:`~stepcredit_bench.workload.SHAPES`.
        num_groups: Prompts.
        responses_per_group: Responses of each.
        seed: Of tokens and weights.
    """

    shape: str = "smollm2-135m"
    num_groups: int = 1
    responses_per_group: int = 64
    seed: int = 0

    def sequences(self) -> list[Encoded]:
        """All responses, group after group."""
        groups = response_groups(
            self.shape,
            num_groups=self.num_groups,
            responses_per_group=self.responses_per_group,
            seed=self.seed,
        )
        return [item for group in groups for item in group]


class _ScoreSide(ABC):
    """Two models and the work; a response's outcome is its log-ratio, in nats."""

    device = "cpu"

    def __init__(self, work: ScoreWork, dtype: str) -> None:
        self.work = work
        self.dtype = dtype

    def load(self) -> None:
        self.sequences = self.work.sequences()
        self.policy, self.reference = (
            random_model(self.work.shape, seed=self.work.seed + number, dtype=self.dtype, device=self.device)
            for number in (1, 2)
        )

    def warm_up(self) -> None:
        self.log_ratios(self.sequences[:PUBLISHED_BATCH])

    def prepare(self) -> None:
        return  # a turn changes nothing

    def run(self) -> dict[str, Any]:
        return {"log_ratios": self.log_ratios(self.sequences)}

    @abstractmethod
    def log_ratios(self, sequences: list[Encoded]) -> list[float]: ...


class OurSide(_ScoreSide):
    """Packed, prompts once, projection at scored positions only, in pieces."""

    def load(self) -> None:
        """The models, as ``stepcredit score`` runs them."""
        super().load()
        for model in (self.policy, self.reference):
            fit_to_processor(model)

    def log_ratios(self, sequences: list[Encoded]) -> list[float]:
        """Sum over each response of policy minus reference."""
        policy, reference = (
            LocalTokenLogProbs(model, weights_hash="random").of(sequences)
            for model in (self.policy, self.reference)
        )
        return [
            float(np.sum(ours, dtype=np.float64) - np.sum(theirs, dtype=np.float64))
            for ours, theirs in zip(policy, reference, strict=True)
        ]


class PublishedSide(_ScoreSide):
    """Whole logits of two padded sequences at a time, policy and then reference."""

    @torch.no_grad()
    def log_ratios(self, sequences: list[Encoded]) -> list[float]:
        """Sum over each response of policy minus reference."""
        ratios: list[float] = []
        for start in range(0, len(sequences), PUBLISHED_BATCH):
            chosen = sequences[start : start + PUBLISHED_BATCH]
            batch = pad(chosen).to(self.device)
            per_token = self._log_probs(self.policy, batch) - self._log_probs(self.reference, batch)
            for row, item in enumerate(chosen):
                ratios.append(per_token[row, item.scored_start - 1 : len(item.token_ids) - 1].sum().item())
        return ratios

    def _log_probs(self, model: Any, batch: Any) -> torch.Tensor:
        logits: torch.Tensor = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).logits[:, :-1]
        gathered = logits.log_softmax(dim=-1).gather(2, batch.input_ids[:, 1:, None])[..., 0]
        return gathered.float()


class VllmSide:
    """vLLM's log-probabilities of prompts, by an engine for each of the two models, one after the other."""

    def __init__(self, work: ScoreWork, dtype: str, python: Path, threads: int) -> None:
        self.work, self.dtype, self.python, self.threads = work, dtype, python, threads

    def load(self) -> None:
        """Write the models and start both engines."""
        self.folder = tempfile.TemporaryDirectory(prefix="bench-score-")
        sequences = [{"tokens": item.token_ids, "start": item.scored_start} for item in self.work.sequences()]
        self.engines = []
        for number in (1, 2):
            path = f"{self.folder.name}/{number}"
            model = random_model(self.work.shape, seed=self.work.seed + number, dtype=self.dtype)
            model.save_pretrained(path)
            del model
            settings = {
                "model": path,
                "dtype": self.dtype,
                "threads": self.threads,
                "context": CONTEXT_LENGTH,
                "sequences": sequences,
            }
            self.engines.append(VllmEngine(self.python, settings))

    def warm_up(self) -> None:
        """Starting did it."""

    def prepare(self) -> None:
        """A turn changes nothing."""

    def run(self) -> dict[str, Any]:
        """Log-ratios; processor seconds and peak memory of both engines."""
        policy, reference = (engine.ask("score") for engine in self.engines)
        pairs = zip(policy["log_probs"], reference["log_probs"], strict=True)
        both = {name: policy[name] + reference[name] for name in ("cpu_seconds", "peak_mb")}
        return {"log_ratios": [ours - theirs for ours, theirs in pairs], **both}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBenchmark:
    """How fast and in how much memory each side scored.

    Attributes:
        work: What was scored.
        dtype: Format of our weights and products.
        published_dtype: The published side's.
        threads: Threads of each side.
        num_scored: Scored tokens.
        sides: Reports: ``ours``, ``published``, where the formats differ ``published_same_dtype``, and where
            it is asked for ``vllm``.
        products_per_second: Operations per second of the models' products on their own, in our format.
    """

    work: ScoreWork
    dtype: str
    published_dtype: str
    threads: int
    num_scored: int
    sides: dict[str, SideReport]
    products_per_second: float

    @property
    def num_responses(self) -> int:
        """Responses that each side scored in a turn."""
        return self.work.num_groups * self.work.responses_per_group

    def speedup(self, other: str) -> float:
        """Our responses/s over those of another side."""
        return self.sides[other].best_seconds / self.sides["ours"].best_seconds

    def cpu_seconds(self, name: str) -> float:
        """Processor seconds of the cheapest turn, in the processes that did the work."""
        report = self.sides[name]
        return float(report.outcome.get("cpu_seconds", min(report.cpu_seconds)))

    def peak_mb(self, name: str) -> float:
        """Peak resident memory (MiB) of the processes that did the work."""
        report = self.sides[name]
        return float(report.outcome.get("peak_mb", report.peak_mb))

    @property
    def operations(self) -> float:
        """Floating-point operations of both models' products, what responses share counted once."""
        return 2 * forward_operations(self.work.shape, shared_work(self.work.sequences()))

    @property
    def utilisation(self) -> float:
        """Share of the products' own rate that ours reaches, by processor seconds."""
        seconds = self.cpu_seconds("ours") / self.threads
        return self.operations / seconds / self.products_per_second

    def memory_ratio(self, other: str) -> float:
        """Our working memory over another side's: the peak, beyond libraries and loaded weights."""
        return self.sides["ours"].working_mb / self.sides[other].working_mb

    def total_memory_ratio(self, other: str) -> float:
        """Our peak resident memory over another side's, libraries and both models' weights included."""
        return self.peak_mb("ours") / self.peak_mb(other)

    def largest_difference(self, other: str) -> float:
        """Largest difference of a response's log-ratio between the sides, in nats per scored token."""
        lengths = np.array([item.num_scored for item in self.work.sequences()])
        ours = np.array(self.sides["ours"].outcome["log_ratios"])
        theirs = np.array(self.sides[other].outcome["log_ratios"])
        return float(np.max(np.abs(ours - theirs) / lengths))


def run_score_benchmark(
    work: ScoreWork,
    *,
    dtype: str,
    published_dtype: str,
    vllm: Path | None,
    turns: int,
    threads: int,
    on_turn: Callable[[str, float], None],
) -> ScoreBenchmark:
    """Score by turns, each side in its own process.

    Args:
        work: What to score.
        dtype: Format of our weights and products, and of vLLM's.
        published_dtype: The published side's.
        vllm: Interpreter of vLLM's environment; ``None`` leaves vLLM out.
        turns: Turns of each side.
        threads: Threads of each side.
        on_turn: Called after each turn.
    """
    sides: dict[str, Callable[[], Side]] = {
        "ours": partial(OurSide, work, dtype),
        "published": partial(PublishedSide, work, published_dtype),
    }
    if published_dtype != dtype:
        sides["published_same_dtype"] = partial(PublishedSide, work, dtype)
    if vllm is not None:
        sides["vllm"] = partial(VllmSide, work, dtype, vllm, threads)
    computed = "float32" if needs_float32(dtype, "cpu") else dtype
    sides["products"] = partial(ProductsSide, work.shape, rows=PRODUCT_ROWS, dtype=computed, backward=False)
    reports = compare(sides, turns=turns, threads=threads, on_turn=on_turn)
    return ScoreBenchmark(
        work=work,
        dtype=dtype,
        published_dtype=published_dtype,
        threads=threads,
        num_scored=sum(item.num_scored for item in work.sequences()),
        products_per_second=reports.pop("products").outcome["products_per_second"],
        sides=reports,
    )
