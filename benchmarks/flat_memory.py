"""Peak memory of grading and converting a million rollouts, sampled as the command runs.

    python benchmarks/flat_memory.py --out docs/results/flat-memory [--rollouts 1000000]

Makes the rollouts (GSM8K-sized: about 300 characters, 64 to a problem, some answers in LaTeX), runs
``stepcredit grade`` and ``stepcredit convert`` as processes of their own, and samples the resident memory of
each with its workers every half second. Writes ``curve.json`` and ``curve.png``; the rollouts are removed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepcredit.data import write_rows

_SAMPLES_EVERY = 0.5  # seconds
_STEPS = "Tom has {a} boxes of {b} pens, so {a} * {b} = {c} pens. He gives some of them to his friends.\n"


def rollouts(count: int) -> Iterator[dict[str, Any]]:
    draw = random.Random(0)
    for number in range(count):
        problem, index = divmod(number, 64)
        answer = problem % 977
        given = answer if draw.random() < 0.5 else draw.randrange(1000)
        text = rf"\frac{{{2 * given}}}{{2}}" if number % 10_000 == 0 else str(given)
        steps = "".join(_STEPS.format(a=problem % 13, b=step, c=problem % 13 * step) for step in range(3))
        yield {
            "id": f"p{problem}/{index}",
            "prompt_id": f"p{problem}",
            "index": index,
            "prompt": f"Problem {problem}: how many pens are left? " + "Tom counts his pens. " * 5,
            "response": f"{steps}The answer is ${text}$.",
            "answer": str(answer),
        }


def resident_bytes(process: int) -> int:
    """Resident memory of a process and its descendants."""
    total, waiting = 0, [process]
    while waiting:
        current = waiting.pop()
        try:
            pages = int(Path(f"/proc/{current}/statm").read_text().split()[1])
            children = Path(f"/proc/{current}/task/{current}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += pages * 4096
        waiting += map(int, children)
    return total


def measure(arguments: list[str]) -> dict[str, Any]:
    start, curve = time.monotonic(), []
    process = subprocess.Popen([sys.executable, "-m", "stepcredit", *arguments], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        curve.append((round(time.monotonic() - start, 2), resident_bytes(process.pid)))
        time.sleep(_SAMPLES_EVERY)
    if process.returncode:
        raise SystemExit(f"{arguments} failed with {process.returncode}")
    peak = max(memory for _, memory in curve)
    return {"seconds": round(time.monotonic() - start, 1), "peak_bytes": peak, "curve": curve}


def plot(results: dict[str, dict[str, Any]], count: int, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name, result in results.items():
        times, memory = zip(*result["curve"], strict=True)
        axes.plot(times, [value / 2**20 for value in memory], label=name)
    axes.axhline(1000, color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="seconds", ylabel="resident memory (MiB)", title=f"{count:,} rollouts", ylim=(0, 1100))
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rollouts", type=int, default=1_000_000)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source, graded = Path(folder) / "rollouts.jsonl", Path(folder) / "graded.jsonl"
        write_rows(source, rollouts(options.rollouts))
        results = {"grade": measure(["grade", str(source), "--grader", "math", "--out", str(graded)])}
        for target, extension in (("trl-unpaired", "jsonl"), ("rollouts", "parquet")):
            out = str(Path(folder) / f"converted.{extension}")
            arguments = ["convert", str(graded), "--to", target, "--out", out]
            results[f"convert to {target} ({extension})"] = measure(arguments)
    summary = {"rollouts": options.rollouts, "results": results}
    (options.out / "curve.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    plot(results, options.rollouts, options.out / "curve.png")
    for name, result in results.items():
        print(f"{name}: peak {result['peak_bytes'] / 2**20:.0f} MiB, {result['seconds']:.0f} s")


if __name__ == "__main__":
    main()
