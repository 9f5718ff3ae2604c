"""The page of a step evaluation, and its main figures, which rank scorers on the leaderboard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepcredit.evaluation.step_results import ALL, MEAN_OF_SUBSETS
from stepcredit.evaluation.tables import Table, counts_text
from stepcredit.reports.cells import Cell, Gallery
from stepcredit.reports.evaluation_plots import calibration_plot, metric_plots
from stepcredit.reports.examples import Example, ExampleStep, prompt_text
from stepcredit.reports.heatmap import heat_map
from stepcredit.reports.page import plain, render_page, signed, span

PRM_BENCH = "eval prmbench"
PROCESS_BENCH = "eval processbench"

_MAIN_METRICS = {PRM_BENCH: ("prm_score", "PRMScore"), PROCESS_BENCH: ("f1", "F1 of finding the first error")}
_OTHER_METRIC = ("first_error_auc", "AUC of first wrong steps")


@dataclass(frozen=True, slots=True)
class Headline:
    """The main figure of each scorer on each part of the data.

    Attributes:
        rows: Part of the data, and a cell for each scorer.
    """

    text: str
    caption: str
    scorers: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def render_step_evaluation(content: Mapping[str, Any], tables: Sequence[Table], title: str) -> str:
    """The page; arguments are those of :func:`stepcredit.reports.evaluation.render_evaluation`."""
    galleries = list(_galleries(content))
    sections = [("figures", "Figures"), ("diagnostics", "Diagnostics")]
    sections += [("failures", "Failures")] if galleries else []
    return render_page(
        "step_evaluation.html",
        title=title,
        kind=content["command"].removeprefix("eval "),
        headline=headline(content),
        plots=list(metric_plots(_plotted(content), _thresholds(content))),
        reliability=[
            calibration_plot(name.removesuffix("/reward").replace("_", " "), diagnosed)
            for name, diagnosed in content["details"].items()
            if name.endswith("/reward")
        ],
        diagnosed=[
            (name, signed(diagnosed["position"]), signed(diagnosed["characters"]))
            for name, diagnosed in content["details"].items()
            if "failures" in diagnosed
        ],
        galleries=galleries,
        sections=[*sections, ("all", "All figures")],
        tables=tables,
        counts={subset: counts_text(counts) for subset, counts in content["counts"].items()},
        excluded=content["excluded"],
        notes=content["notes"],
    )


def headline(content: Mapping[str, Any]) -> Headline:
    """The main figures, and a sentence on those of all the data."""
    rows = main_rows(content)
    subsets = list(dict.fromkeys(row["subset"] for row in rows))
    scorers = tuple(dict.fromkeys(row["scorer"] for row in rows))
    by_place = {(row["subset"], row["scorer"]): row for row in rows}
    whole = next((name for name in (ALL, MEAN_OF_SUBSETS) if name in subsets), subsets[0] if subsets else "")
    title = _main_metric(content)[1]
    stated = [
        f"{scorer} {plain(row['value'])}"
        + ("" if row["low"] is None else f" (95% interval {span(row['low'], row['high'])})")
        for scorer in scorers
        if (row := by_place.get((whole, scorer))) is not None and row["value"] is not None
    ]
    name = {ALL: "over all categories", MEAN_OF_SUBSETS: "as a mean over the data"}.get(whole, f"on {whole}")
    text = f"{title} {name}: {', '.join(stated)}." if stated else f"These data have no {title}."
    caption = f"{title}, scores of individual steps, with 95% intervals over problems."
    if any(row["threshold_from"] for row in rows):
        caption += f" {_thresholds(content)}"
    order = [*(name for name in subsets if name != whole), whole] if whole else []
    table = tuple(
        (subset.replace("_", " "), tuple(_cell(by_place, subset, scorer, scorers) for scorer in scorers))
        for subset in order
    )
    return Headline(text, caption, scorers, table)


def main_rows(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Each scorer's main figure on each part of the data, with no threshold that was chosen on that part."""
    metric = _main_metric(content)[0]
    return list(_fair_rows(content, [row for row in content["results"] if row["metric"] == metric]))


def _main_metric(content: Mapping[str, Any]) -> tuple[str, str]:
    return _MAIN_METRICS.get(content["command"], _OTHER_METRIC)


def _thresholds(content: Mapping[str, Any]) -> str:
    if content["command"] == PRM_BENCH:
        return "At the published threshold."
    return "At a threshold tuned on other data, if there is one, otherwise at 0."


def _plotted(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = [row for row in content["results"] if row["quantity"] == "reward"]
    with_threshold = [row for row in rows if row["threshold_from"] is not None]
    metrics = dict.fromkeys(row["metric"] for row in with_threshold)
    fair = [
        row
        for metric in metrics
        for row in _fair_rows(content, [row for row in with_threshold if row["metric"] == metric])
    ]
    return [row for row in rows if row["threshold_from"] is None] + fair


def _fair_rows(content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Of each part and scorer the row with the published threshold, or a tuned one, or a fixed one."""
    candidates: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        origin = str(row["threshold_from"])
        # On the data that a threshold was tuned on it is no fair threshold.
        fair = "oracle" not in origin and origin != f"tuned on {row['subset']}"
        if row["quantity"] == "reward" and fair:
            candidates.setdefault((row["subset"], row["scorer"]), []).append(row)
    # PRMBench is compared with its table; elsewhere a threshold of other data is the fair one.
    preferred = "(published)" if content["command"] == PRM_BENCH else "tuned"
    for of_one in candidates.values():
        yield next((row for row in reversed(of_one) if preferred in str(row["threshold_from"])), of_one[-1])


def _cell(
    by_place: Mapping[tuple[str, str], Mapping[str, Any]], subset: str, scorer: str, scorers: Sequence[str]
) -> Cell:
    row = by_place.get((subset, scorer))
    if row is None or row["value"] is None:
        return Cell(plain(None))
    rivals = [by_place[subset, other]["value"] for other in scorers if (subset, other) in by_place]
    best = len(rivals) > 1 and row["value"] == max(value for value in rivals if value is not None)
    return Cell(plain(row["value"]), span(row["low"], row["high"]), best)


def _galleries(content: Mapping[str, Any]) -> Iterator[Gallery]:
    details = content["details"].items()
    failures = [(name, detail["failures"]) for name, detail in details if detail.get("failures")]
    for index, (name, examples) in enumerate(failures):
        shown = [
            Example(
                prompt=prompt_text(failure["prompt"]),
                steps=tuple(
                    ExampleStep(text=step["text"], reward=step["reward"]) for step in failure["steps"]
                ),
                id=failure["id"],
                correct=failure["correct"],
                first_wrong_step=failure["first_wrong_step"],
                note=f"{failure['kind']}, by {plain(failure['margin'], 2)} standard deviations",
            )
            for failure in examples
        ]
        yield Gallery(name, f"failures-{index}", heat_map(shown))
