"""What only a GPU shows, in one script cut off after 8 minutes; without one it runs on the CPU, tiny.

    python benchmarks/gpu.py --out gpu.json [--section equality ...]

Sections run one after the other, each within its own time. One that fails is reported and the others go on;
results are written after every section. Beside PyTorch and transformers it needs ``src`` and ``benchmarks``
on ``PYTHONPATH`` and the package ``jaxtyping``; TRL and PEFT are measured where they are installed.

The package asks for torch 2.13 and transformers 5.23; this script also runs with transformers 5.17. There no
class stands for layers that keep no keys and values, so models with such layers cannot be sampled, and the
switch for recomputing activations has another name; no section recomputes any. What it uses of torch is older
than 2.11: ``fully_shard`` is of 2.6, ``flex_attention`` with grouped queries of 2.5.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stepcredit.runs import atomic_path
from stepcredit_bench.gpu_sections import SECTIONS, Settings, last_line


def run(settings: Settings, out: Path, names: Sequence[str] = tuple(SECTIONS)) -> dict[str, Any]:
    """Run sections, writing what is known after each.

    Args:
        settings: Where and how large.
        out: The JSON file.
        names: Sections, in order.
    """
    results: dict[str, Any] = {"settings": {"device": settings.device, "shape": settings.shape}}
    for name in names:
        section, seconds = SECTIONS[name]
        start = time.perf_counter()
        try:
            with _time_box(seconds):
                result = section(settings)
        except Exception as error:
            traceback.print_exc()
            result = {"failed": last_line(error)}
        result["section_seconds"] = time.perf_counter() - start
        results[name] = result | _utilisation(result, results.get("machine", {}))
        with atomic_path(out) as temporary:
            temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        print(f"{name}: {json.dumps(results[name])}", file=sys.stderr, flush=True)
    return results


def _utilisation(result: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, float]:
    """Each timed side's share of the products' own rate."""
    if "products_per_second" not in measured:
        return {}
    return {
        f"{name}_utilisation": side["operations_per_second"] / measured["products_per_second"]
        for name, side in result.items()
        if isinstance(side, dict) and "operations_per_second" in side
    }


@contextlib.contextmanager
def _time_box(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """Run on the GPU, or tiny on the CPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--section", action="append", choices=tuple(SECTIONS))
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    settings = Settings("cuda", "llama-1b") if on_gpu else Settings("cpu", "tiny")
    results = run(settings, options.out, options.section or tuple(SECTIONS))
    if any("failed" in result for result in results.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
