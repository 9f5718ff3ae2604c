"""What a machine allows: operations and bytes of a model's work, beside the measured rates of both.

Utilisation is a side's operations by its processor seconds and the rate that the model's own matrix products
reach on their own, in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stepcredit.logprobs.prefixes import prefix_tree
from stepcredit.logprobs.projection import LOGIT_TILE_BYTES
from stepcredit.types import Encoded
from stepcredit_bench.workload import SHAPES

OPTIMIZER_BYTES = 28
"""Bytes moved per parameter by AdamW in float32: four numbers are read and three of them written."""

_COPIED_FLOATS = 2**25
_SHORTEST = 0.05
"""Seconds over which a product is repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a model has to compute.

    Attributes:
        tokens: Positions that the layers compute.
        scored: Positions that the head computes.
        attended: Pairs of a query and a key that it attends to, over all positions, of one head and layer.
    """

    tokens: int = 0
    scored: int = 0
    attended: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            tokens=self.tokens + other.tokens,
            scored=self.scored + other.scored,
            attended=self.attended + other.attended,
        )


def shared_work(sequences: Sequence[Encoded]) -> Work:
    """Of sequences of which each distinct one, and each common prefix, is computed once."""
    distinct = list({(item.token_ids, item.scored_start): item for item in sequences}.values())
    tree = prefix_tree([item.token_ids for item in distinct])
    attended = 0
    for node, segment in enumerate(tree.segments):
        context = sum(len(tree.segments[link]) for link in tree.path(node)[:-1])
        attended += _attended(context, len(segment))
    return Work(tokens=tree.num_tokens, scored=sum(item.num_scored for item in distinct), attended=attended)


def separate_work(sequences: Iterable[Encoded]) -> Work:
    """Of sequences that are each computed whole, without padding and with the head at scored positions."""
    total = Work()
    for item in sequences:
        length = len(item.token_ids)
        total += Work(tokens=length, scored=item.num_scored, attended=_attended(0, length))
    return total


def _attended(context: int, length: int) -> int:
    return length * context + length * (length + 1) // 2


def forward_operations(shape: str, work: Work) -> float:
    """Floating-point operations of matrix products in a forward pass; a backward pass takes twice as many.

    Args:
        shape: Name in :data:`~stepcredit_bench.workload.SHAPES`.
        work: Positions, and what they attend to.
    """
    sizes = SHAPES[shape]
    layer = sum(rows * columns for rows, columns in _layer_products(shape))
    head = sizes["vocab_size"] * sizes["hidden_size"]
    layers = sizes["num_hidden_layers"]
    attention = 2 * sizes["hidden_size"] * work.attended  # scores, and averages of values
    return 2.0 * (layers * (layer * work.tokens + attention) + head * work.scored)


def training_operations(shape: str, work: Work) -> float:
    """As :func:`forward_operations`, forward and backward, without anything computed twice."""
    return 3 * forward_operations(shape, work)


def num_parameters(shape: str) -> int:
    """Weights of the products, the tied embedding once; norms are left out."""
    sizes = SHAPES[shape]
    layer = sum(rows * columns for rows, columns in _layer_products(shape))
    return sizes["num_hidden_layers"] * layer + sizes["vocab_size"] * sizes["hidden_size"]


def _layer_products(shape: str) -> list[tuple[int, int]]:
    """(outputs, inputs) of each linear layer of a transformer layer."""
    sizes = SHAPES[shape]
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    keys = width * sizes["num_key_value_heads"] // sizes["num_attention_heads"]
    return [
        *((width, width), (keys, width), (keys, width), (width, width)),
        *((inner, width), (inner, width), (width, inner)),
    ]


class ProductsSide:
    """The model's linear layers as bare matrix products: a side whose work is what is measured against.

    It takes turns with the sides that are compared, so that other work on the machine slows all alike. Its
    outcome has ``products_per_second``, in operations, and ``bytes_per_second``, read and written by copies.

    Args:
        shape: Name in :data:`~stepcredit_bench.workload.SHAPES`.
        rows: Positions per product: those of a forward pass.
        dtype: Name of the products' number format.
        backward: Whether to run the two products of a backward pass too.
    """

    def __init__(self, shape: str, *, rows: int, dtype: str, backward: bool) -> None:
        self.shape, self.rows, self.backward = shape, rows, backward
        self.dtype: torch.dtype = getattr(torch, dtype)

    def load(self) -> None:
        """Nothing stays in memory between turns."""

    def warm_up(self) -> None:
        """One layer's products."""
        for outputs, inputs in _layer_products(self.shape):
            self._seconds(outputs, inputs, self.rows, at_least=0.0)

    def prepare(self) -> None:
        """Nothing to bring about."""

    def run(self) -> dict[str, Any]:
        """Measure both rates."""
        sizes = SHAPES[self.shape]
        factor = 3 if self.backward else 1
        operations = seconds = 0.0
        products: list[tuple[tuple[int, int], float, int]] = [
            (size, sizes["num_hidden_layers"], self.rows) for size in _layer_products(self.shape)
        ]
        # The head runs in tiles of the vocabulary.
        tokens = min(sizes["vocab_size"], max(1, LOGIT_TILE_BYTES["cpu"] // (4 * self.rows)))
        tiles = sizes["vocab_size"] / tokens
        products.append(((tokens, sizes["hidden_size"]), tiles, self.rows))
        for (outputs, inputs), times, rows in products:
            operations += times * factor * 2.0 * rows * outputs * inputs
            seconds += times * self._seconds(outputs, inputs, rows, at_least=_SHORTEST)
        return {"products_per_second": operations / seconds, "bytes_per_second": _bytes_per_second()}

    def _seconds(self, outputs: int, inputs: int, rows: int, *, at_least: float) -> float:
        source = torch.Generator().manual_seed(0)
        states = torch.randn(rows, inputs, generator=source).to(self.dtype)
        weight = torch.randn(outputs, inputs, generator=source).to(self.dtype)
        grad = torch.randn(rows, outputs, generator=source).to(self.dtype) if self.backward else None

        def once() -> None:
            for _ in _products(states, weight, grad):
                pass

        once()
        return _fastest(once, at_least=at_least)


def _products(states: Tensor, weight: Tensor, grad: Tensor | None) -> Iterator[Tensor]:
    yield states @ weight.T
    if grad is not None:
        yield grad @ weight
        yield grad.T @ states


def _fastest(once: Any, *, at_least: float) -> float:
    """Seconds of the fastest of the repetitions within a time; at least one.

    Processor seconds per thread, so that waiting for a processor that others use does not count.
    """
    best = float("inf")
    threads = torch.get_num_threads()
    end = time.perf_counter() + at_least
    while True:
        start = time.process_time()
        once()
        best = min(best, (time.process_time() - start) / threads)
        if time.perf_counter() >= end:
            return best


def _bytes_per_second() -> float:
    """Bytes read and written per second by a copy that no cache holds."""
    source = torch.ones(_COPIED_FLOATS)
    target = torch.zeros_like(source)
    return 2 * 4 * _COPIED_FLOATS / _fastest(lambda: target.copy_(source), at_least=4 * _SHORTEST)
