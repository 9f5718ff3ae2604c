"""Counts for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stepcredit.serving.batching import Batcher


class _Batches(Collector):
    """What the batchers count themselves, read when it is asked for."""

    def __init__(self, batchers: Mapping[str, Batcher]) -> None:
        self._batchers = batchers

    def collect(self) -> Iterator[Metric]:
        """One family of metrics for each count."""
        counted = {
            "batches": "Batches scored",
            "responses": "Responses scored",
            "tokens": "Tokens scored (estimate: a third of the bytes)",
            "seconds": "Seconds spent scoring",
        }
        for name, text in counted.items():
            family = CounterMetricFamily(f"stepcredit_{name}", text, labels=["model"])
            for model, batcher in self._batchers.items():
                family.add_metric([model], getattr(batcher.counts, name))
            yield family
        waiting = GaugeMetricFamily(
            "stepcredit_waiting_tokens", "Waiting tokens (estimate)", labels=["model"]
        )
        for model, batcher in self._batchers.items():
            waiting.add_metric([model], batcher.waiting_tokens)
        yield waiting


class Metrics:
    """A registry of its own, so that several servers may live in one process."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, batchers: Mapping[str, Batcher]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Batches(batchers))
        self._requests = Counter(
            "stepcredit_requests", "Answered requests", ["path", "status"], registry=self._registry
        )

    def count(self, path: str, status: int) -> None:
        """Count an answered request; ``path`` is a route's, so that no client can make labels."""
        self._requests.labels(path, str(status)).inc()

    @property
    def requests(self) -> int:
        """Requests answered so far."""
        return int(
            sum(s.value for m in self._requests.collect() for s in m.samples if s.name.endswith("_total"))
        )

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)
