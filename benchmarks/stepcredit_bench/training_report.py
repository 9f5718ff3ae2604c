"""The sides of the training benchmark by turns, and what they took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from stepcredit_bench.limit import ProductsSide
from stepcredit_bench.processes import Side, SideReport, compare
from stepcredit_bench.training import OurSide, PlainSide, TrlSide
from stepcredit_bench.training_work import TrainWork

_LIMIT = "products"
_ROWS = 1024
"""Positions per product: about those of a forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBenchmark:
    """How fast and in how much memory each side trained.

    Attributes:
        work: What was trained.
        threads: Threads of each side.
        sides: Reports: ``ours``, ``plain_loop``, and for DPO ``trl_dpo``.
        rates: What the machine reached meanwhile: ``products_per_second``, ``bytes_per_second``.
    """

    work: TrainWork
    threads: int
    sides: dict[str, SideReport]
    rates: Mapping[str, float]

    def tokens_per_second(self, side: str) -> float:
        """Trained tokens (each unit's, prompts included) by wall-clock time."""
        return self.work.num_tokens / self.sides[side].best_seconds

    def units_per_second(self, side: str) -> float:
        """Pairs, or responses for CE, by wall-clock time."""
        return len(self.work.data.units) / self.sides[side].best_seconds

    def speedup(self, other: str) -> float:
        """Our tokens/s over another side's."""
        return self.tokens_per_second("ours") / self.tokens_per_second(other)

    def processor_ratio(self, other: str) -> float:
        """Another side's processor seconds over ours: the speedup, without what waited for a processor."""
        return min(self.sides[other].cpu_seconds) / min(self.sides["ours"].cpu_seconds)

    def operations(self, side: str) -> float:
        """What a side's way of doing the work has to compute, without padding and recomputation."""
        return self.work.operations(shared=side == "ours")

    def utilisation(self, side: str) -> float:
        """Those operations by processor time, over the rate of the model's products on their own."""
        seconds = min(self.sides[side].cpu_seconds) / self.threads
        return self.operations(side) / seconds / self.rates["products_per_second"]

    @property
    def bytes_moved(self) -> float:
        """By our side, of weights and what belongs to them."""
        return self.work.bytes_moved(self.sides["ours"].outcome["passes"])

    def predicted_seconds(self) -> float:
        """Of our side: its operations and bytes at the measured rates, one after the other."""
        return (
            self.operations("ours") / self.rates["products_per_second"]
            + self.bytes_moved / self.rates["bytes_per_second"]
        )

    def memory_ratio(self, other: str) -> float:
        """Our peak resident memory over another side's, everything included."""
        return self.sides["ours"].peak_mb / self.sides[other].peak_mb

    def largest_loss_difference(self, other: str) -> float:
        """Largest difference of a step's loss between the sides."""
        ours, theirs = (self.sides[name].outcome["losses"] for name in ("ours", other))
        return float(max(abs(left - right) for left, right in zip(ours, theirs, strict=True)))


def run_train_benchmark(
    work: TrainWork, *, turns: int, threads: int, on_turn: Callable[[str, float], None]
) -> TrainBenchmark:
    """Train by turns, each side in its own process, and measure in turns what they could reach."""
    sides: dict[str, Callable[[], Side]] = {
        name: partial(side, work) for name, side in sides_of(work).items()
    }
    sides[_LIMIT] = partial(ProductsSide, work.shape, rows=_ROWS, dtype=work.precision, backward=True)
    reports = compare(sides, turns=turns, threads=threads, on_turn=on_turn)
    limit = reports.pop(_LIMIT)
    return TrainBenchmark(work=work, threads=threads, sides=reports, rates=limit.outcome)


def sides_of(work: TrainWork) -> dict[str, type[OurSide | TrlSide | PlainSide]]:
    """Name to side. TRL has no trainer for CE; to a group's pairs the plain loop adds nothing but time."""
    sides: dict[str, type[OurSide | TrlSide | PlainSide]] = {"ours": OurSide}
    if work.objective == "dpo":
        sides["trl_dpo"] = TrlSide
    if work.objective == "ce" or work.workload == "pairs":
        sides["plain_loop"] = PlainSide
    return sides
