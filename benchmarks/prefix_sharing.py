"""What sharing prompts saves: one group of responses scored with and without it, by turns.

python benchmarks/prefix_sharing.py --shape smollm2-135m --responses 64
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from stepcredit.logprobs import LocalTokenLogProbs, pack
from stepcredit_bench.workload import SHAPES, random_model, response_groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), default="smollm2-135m")
    parser.add_argument("--responses", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    (group,) = response_groups(options.shape, num_groups=1, responses_per_group=options.responses)
    model = random_model(options.shape, seed=1, dtype=options.dtype)
    sources = {
        name: LocalTokenLogProbs(model, weights_hash="random", share_prefixes=shared)
        for name, shared in (("shared", True), ("unshared", False))
    }
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    sums: dict[str, np.ndarray] = {}
    for turn in range(options.turns + 1):
        for name, source in sources.items():
            started = time.perf_counter()
            sums[name] = np.array([row.sum(dtype=np.float64) for row in source.of(group)])
            if turn > 0:  # the first turn warms up
                seconds[name].append(time.perf_counter() - started)
    print(f"tokens: {sum(len(item.token_ids) for item in group):,}; computed: {pack(group).num_computed:,}")
    for name, taken in seconds.items():
        print(f"{name:<10}{options.responses / min(taken):8.2f} responses/s")
    print(f"largest difference: {np.abs(sums['shared'] - sums['unshared']).max():.2g} nats a response")


if __name__ == "__main__":
    main()
