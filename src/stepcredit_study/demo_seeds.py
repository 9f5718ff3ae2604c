"""The demo over several seeds, as a committed table.

A seed redraws problems, responses and the order of training; the policies and their misconceptions stay.

Run: python -m stepcredit_study.demo_seeds --out runs/results --publish docs/results/demo
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepcredit.pipelines import demo
from stepcredit.pipelines.demo import POLICIES, PRM, REFERENCE
from stepcredit.runs import write_json, write_text

SEEDS = (0, 1, 2)
_METHODS = (
    ("one response (pass@1)", "pass", None, None),
    ("majority vote", "majority", None, None),
    ("reference log-probability", "best-of-n", REFERENCE, "sum"),
    ("implicit PRM, lowest step", "best-of-n", PRM, "min"),
    ("implicit PRM, sum", "best-of-n", PRM, "sum"),
    ("oracle (pass@n)", "pass", None, None),
)
_LOCALISATION = {
    "auc": "AUC of step rewards: first wrong steps against right steps before any error",
    "reference_auc": "the same, of the reference's step log-probability",
    "lowest_is_first_wrong": "responses with a wrong step whose lowest reward is at the first wrong one",
    "minimum_is_last": "responses whose lowest reward is at the last step",
}


def run(out: Path, publish: Path) -> None:
    """Run the demo with each seed, going on from what is there, and publish what it found."""
    summaries = [demo.run(demo.Options(out=out / f"seed-{seed}", seed=seed)).to_json() for seed in SEEDS]
    for summary in summaries:
        del summary["examples"]  # The report of a run shows them.
    content = {
        "command": f"python -m stepcredit_study.demo_seeds --out {out} --publish {publish}",
        "seeds": summaries,
    }
    write_json(publish / "results.json", content)
    write_text(publish / "README.md", page(content))


def page(content: Mapping[str, Any]) -> str:
    """What ``results.json`` holds as Markdown: mean over seeds, and each seed's number beside it."""
    return "\n".join(_page(content["seeds"], content["command"])) + "\n"


def _page(summaries: Sequence[Mapping[str, Any]], command: str) -> Iterator[str]:
    first = summaries[0]["policies"]["mid"]
    yield "# The demo over three seeds"
    yield ""
    yield (
        f"{first['num_problems']} held-out problems per seed, {first['num_responses']} responses to each. A "
        "cell is the mean over seeds, with each seed's number in brackets; `results.json` has the 95% "
        "intervals over problems, settings, versions and times."
    )
    yield ""
    yield f"    {command}"
    for policy in POLICIES:
        measured = [summary["policies"][policy] for summary in summaries]
        distinct = _cell([row["distinct_mean"] for row in measured], 1)
        yield ""
        yield f"## Responses of the {policy} policy ({distinct} distinct of {first['num_responses']})"
        yield ""
        yield from _accuracy_table([row["results"] for row in measured])
        yield ""
        yield "| finding the wrong step | |"
        yield "| --- | --- |"
        for name, meaning in _LOCALISATION.items():
            yield f"| {meaning} | {_cell([row['localisation'][name] for row in measured], 4)} |"


def _accuracy_table(results: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    accuracies = [
        {(row["method"], row["scorer"], row["aggregate"], row["n"]): float(row["accuracy"]) for row in rows}
        for rows in results
    ]
    sizes = sorted({n for *_, n in accuracies[0]})
    yield "| chosen by | " + " | ".join(f"n = {n}" for n in sizes) + " |"
    yield "| --- |" + " --- |" * len(sizes)
    for label, *method in _METHODS:
        cells = []
        for n in sizes:
            key = (*method, 1 if label.startswith("one") else n)
            cells.append(_cell([accuracy[key] for accuracy in accuracies], 3))
        yield f"| {label} | " + " | ".join(cells) + " |"


def _cell(values: Sequence[float], digits: int) -> str:
    mean = sum(values) / len(values)
    return f"{mean:.{digits}f} ({', '.join(f'{value:.{digits}f}' for value in values)})"


def main() -> None:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    parser.add_argument("--publish", type=Path, default=Path("docs/results/demo"))
    arguments = parser.parse_args()
    run(arguments.out, arguments.publish)


if __name__ == "__main__":
    main()
