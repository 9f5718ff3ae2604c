"""The demo over several seeds, as a committed table.

A seed redraws problems, responses and the order of training; the policies and their misconceptions stay.

Run: python -m stepcredit_study.demo_seeds --out runs/results --publish docs/results/demo
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stepcredit.pipelines import demo
from stepcredit.pipelines.lab_run import POLICIES, PRM_SCORES, REFERENCE_SCORES
from stepcredit.reports.summary import Accuracy, DemoSummary, Localisation
from stepcredit.runs import atomic_path, write_json

SEEDS = (0, 1, 2)
_METHODS = (
    ("one response (pass@1)", "pass", None, None),
    ("majority vote", "majority", None, None),
    ("reference log-probability", "best-of-n", REFERENCE_SCORES, "sum"),
    ("implicit PRM, lowest step", "best-of-n", PRM_SCORES, "min"),
    ("implicit PRM, sum", "best-of-n", PRM_SCORES, "sum"),
    ("oracle (pass@n)", "pass", None, None),
)
_LOCALISATION = ("auc", "reference_auc", "lowest_is_first_wrong", "minimum_is_last")


def run(out: Path, publish: Path) -> None:
    """Run the demo with each seed, going on from what is there, and publish what it found."""
    summaries = [demo.run(demo.Options(out=out / f"seed-{seed}", seed=seed)).summary for seed in SEEDS]
    results = [_without_texts(summary) for summary in summaries]
    write_json(publish / "results.json", {"command": command(out, publish), "seeds": results})
    with atomic_path(publish / "README.md") as temporary:
        temporary.write_text("\n".join(page(summaries, command(out, publish))) + "\n", encoding="utf-8")


def command(out: Path, publish: Path) -> str:
    """What makes these results."""
    return f"python -m stepcredit_study.demo_seeds --out {out} --publish {publish}"


def _without_texts(summary: DemoSummary) -> dict[str, Any]:
    """Everything but the worked examples, which the report of a run shows."""
    from stepcredit.reports.summary import summary_to_json

    content = summary_to_json(summary)
    del content["examples"]
    return content


def page(summaries: Sequence[DemoSummary], made_by: str) -> Iterator[str]:
    """The results as Markdown: mean over seeds, and each seed's number beside it."""
    first = summaries[0].policies["mid"]
    yield "# The demo over three seeds"
    yield ""
    yield (
        f"{first.num_problems} held-out problems a seed, {first.num_responses} responses to each. A cell is "
        "the mean over seeds, with each seed's number in brackets; `results.json` has the 95% intervals over "
        "problems, settings, versions and times."
    )
    yield ""
    yield f"    {made_by}"
    for policy in POLICIES:
        distinct = [summary.policies[policy].distinct_mean or 0.0 for summary in summaries]
        yield ""
        yield f"## Responses of the {policy} policy ({_cell(distinct, 1)} distinct of {first.num_responses})"
        yield ""
        yield from _accuracy_table([summary.policies[policy].results for summary in summaries])
        yield ""
        found = [summary.policies[policy].localisation or Localisation() for summary in summaries]
        yield from _localisation_table(found)


def _accuracy_table(results: Sequence[Sequence[Accuracy]]) -> Iterator[str]:
    sizes = sorted({row.n for row in results[0]})
    yield "| chosen by | " + " | ".join(f"n = {n}" for n in sizes) + " |"
    yield "| --- |" + " --- |" * len(sizes)
    for label, method, scorer, aggregate in _METHODS:
        cells = []
        for n in sizes:
            key = (method, scorer, aggregate, 1 if label.startswith("one") else n)
            cells.append(_cell([_find(rows, key) for rows in results], 3))
        yield f"| {label} | " + " | ".join(cells) + " |"


def _find(rows: Sequence[Accuracy], key: tuple[str, str | None, str | None, int]) -> float:
    (found,) = [row for row in rows if (row.method, row.scorer, row.aggregate, row.n) == key]
    return found.accuracy


def _localisation_table(found: Sequence[Localisation]) -> Iterator[str]:
    yield "| finding the wrong step | |"
    yield "| --- | --- |"
    names = {
        "auc": "AUC of step rewards: first wrong steps against right steps before any error",
        "reference_auc": "the same, of the reference's step log-probability",
        "lowest_is_first_wrong": "responses with a wrong step whose lowest reward is at the first wrong one",
        "minimum_is_last": "responses whose lowest reward is at the last step",
    }
    for name in _LOCALISATION:
        values = [getattr(each, name) for each in found]
        yield f"| {names[name]} | {_cell([value for value in values if value is not None], 4)} |"


def _cell(values: Sequence[float], digits: int) -> str:
    mean = sum(values) / len(values)
    return f"{mean:.{digits}f} ({', '.join(f'{value:.{digits}f}' for value in values)})"


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    parser.add_argument("--publish", type=Path, default=Path("docs/results/demo"))
    arguments = parser.parse_args()
    run(arguments.out, arguments.publish)


if __name__ == "__main__":
    main()
