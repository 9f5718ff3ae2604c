"""What one step of training holds in memory, by kind, as passes become smaller and recompute what is cheap.

    python benchmarks/train_memory.py --out docs/results/benchmarks/train-memory.json [--shape smollm2-135m]

Each way of cutting a step runs in a process of its own: libraries, a model in float32, passes over pairs of
responses that have prompts of their own, AdamW. Sizes of tensors are added up; what a pass keeps, and what it
takes on top in the backward pass, is resident memory (Linux), in MiB.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from pathlib import Path
from typing import Any

import torch

from stepcredit.logprobs import enable_log_probs, enable_packing, pack, token_log_probs
from stepcredit.logprobs.projection import LOGIT_TILE_BYTES
from stepcredit.training.budget import tokens_per_forward
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import TrainingSet
from stepcredit.training.recomputing import recompute_cheap
from stepcredit.types import Encoded
from stepcredit_bench.processes import peak_mb, release_free_memory, reset_peak, resident_mb
from stepcredit_bench.workload import random_model, response_groups

_MIB = 2**20
_WAYS = {"1,280 tokens": (1280, False), "1,280 tokens, recomputed": (1280, True), "as chosen": (None, False)}


def batch_of(shape: str, tokens: int) -> list[Encoded]:
    """Pairs with prompts of their own that a pass of so many tokens holds."""
    chosen: list[Encoded] = []
    for pair in response_groups(shape, num_groups=64, responses_per_group=2):
        if chosen and pack([*chosen, *pair]).num_computed > tokens:
            break
        chosen += pair
    return chosen


def measure(shape: str, tokens: int | None, recomputes: bool) -> dict[str, Any]:
    """Sizes in MiB after two passes and a step of the optimizer."""
    torch.set_num_threads(1)
    release_free_memory()
    used: dict[str, Any] = {"libraries": resident_mb()}
    model = random_model(shape, seed=1).train()
    enable_log_probs(model)
    enable_packing(model)
    if recomputes:
        recompute_cheap(model)
    if tokens is None:
        tokens = tokens_per_forward(model, TrainingSet(examples=(), units=()), TrainConfig(), packed=True)
    batch = pack(batch_of(shape, tokens))
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=1e-5, fused=True)
    reset_peak()
    for number in range(2):
        release_free_memory()
        before = resident_mb()
        loss = token_log_probs(model, batch).sum()
        kept = resident_mb() - before
        loss.backward()
        del loss
        if number == 0:
            optimizer.step()  # moments are there from the first step on
            reset_peak()
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    moments = [value for state in optimizer.state.values() for value in state.values()]
    peak = peak_mb()
    used |= {
        "weights": _mib(weights),
        "gradients": _mib(gradients),
        "moments": _mib(moments),
        "kept for the backward pass": kept,
        "a tile of logits": LOGIT_TILE_BYTES["cpu"] / _MIB,
        "peak": peak,
        "tokens": batch.num_computed,
    }
    named = sum(value for name, value in used.items() if name not in ("peak", "tokens"))
    return {**used, "on top in the backward pass": peak - named}


def _mib(tensors: list[Any]) -> float:
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors)) / _MIB


def main() -> None:
    """Measure each way in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", default="smollm2-135m")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"shape": arguments.shape, "unit": "MiB"}
    context = multiprocessing.get_context("spawn")
    for name, (tokens, recomputes) in _WAYS.items():
        with context.Pool(1) as pool:
            result[name] = pool.apply(measure, (arguments.shape, tokens, recomputes))
        print(name, {key: round(value) for key, value in result[name].items()})
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
