"""How many requests a server answers, and how fast, with batches shared between requests and without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepcredit.options import check_at_least_one, option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stepcredit_bench.serving import Load

SIDES = ("shared", "exact")
"""Batches over all clients' requests, and a batch per request (``--exact``)."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit bench serve``."""

    shape: str = option(
        "the lab's models, or a shape with random weights; tiny only checks that it runs",
        default="lab",
        choices=("lab", "smollm2-135m", "tiny"),
    )
    concurrency: tuple[int, ...] = option(
        "numbers of clients that send requests at the same time, comma-separated",
        default=(1, 4, 16, 64),
        metavar="N",
    )
    responses: int = option("number of responses per request", default=4)
    requests: int = option("largest number of requests per measurement", default=2000)
    seconds: float = option("seconds after which a measurement sends no more requests", default=20.0)
    seed: int = option("seed of texts and weights", default=0)

    def __post_init__(self) -> None:
        check_at_least_one(self, "responses", "requests")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What ``stepcredit bench serve`` prints.

    Attributes:
        shape: What was served.
        responses: In each request.
        loads: Side to its measurements, one per number of clients.
    """

    shape: str
    responses: int
    loads: Mapping[str, Sequence[Load]]

    def gains(self) -> list[float]:
        """Processor time per request without shared batches over that with them, per number of clients."""
        shared, exact = (self.loads[side] for side in SIDES)
        return [
            theirs.cpu_per_request / ours.cpu_per_request for ours, theirs in zip(shared, exact, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """Every measurement, and the gain of sharing batches."""
        return {
            "shape": self.shape,
            "responses_per_request": self.responses,
            "loads": {side: [load.to_json() for load in loads] for side, loads in self.loads.items()},
            "gain_of_shared_batches": self.gains(),
        }

    def to_text(self) -> str:
        """A table, and the gain of sharing batches."""
        lines = [
            f"{self.shape}, {self.responses} responses per request",
            f"{'batches':<10}{'clients':>8}{'requests/s':>12}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}"
            f"{'CPU ms':>10}{'failed':>8}",
        ]
        for side, loads in self.loads.items():
            for load in loads:
                latencies = "".join(f"{1000 * load.latency(share):>10.1f}" for share in (0.5, 0.95, 0.99))
                lines.append(
                    f"{side:<10}{load.concurrency:>8}{load.requests_per_second:>12.1f}{latencies}"
                    f"{1000 * load.cpu_per_request:>10.1f}{len(load.failures):>8}"
                )
        gains = ", ".join(f"{gain:.2f}" for gain in self.gains())
        return "\n".join([*lines, f"gain of sharing batches, in processor time: {gains}"])


def run(options: Options) -> Result:
    """Measure."""
    import tempfile
    from pathlib import Path

    from stepcredit.runs import Progress
    from stepcredit_bench.serving import ServerProcess, measure, save_models, score_bodies

    loads: dict[str, list[Load]] = {side: [] for side in SIDES}
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress("bench serve", len(SIDES) * len(options.concurrency), "measurements", every=1.0) as progress,
    ):
        words = save_models(options.shape, Path(folder), seed=options.seed)
        for side in SIDES:
            with ServerProcess(*words, *(["--exact"] if side == "exact" else [])) as server:
                for concurrency in options.concurrency:
                    load = measure(
                        server,
                        score_bodies(options.shape, options.responses, seed=options.seed),
                        concurrency=concurrency,
                        requests=options.requests,
                        seconds=options.seconds,
                    )
                    loads[side].append(load)
                    progress.advance(extra=f"{side}, {concurrency}: {load.requests_per_second:.1f}/s")
    return Result(shape=options.shape, responses=options.responses, loads=loads)
