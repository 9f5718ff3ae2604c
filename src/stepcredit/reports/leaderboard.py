"""The leaderboard: every evaluation below a folder, the scorers of each ranked by its main figure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stepcredit.errors import DataError
from stepcredit.reports.evaluation import BEST_OF_N, read_evaluation
from stepcredit.reports.page import interval, percent, render_page
from stepcredit.reports.plots import Axis, Interval, interval_plot

RESULTS = "results.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A scorer's main figure in one evaluation.

    Attributes:
        scorer: Its name.
        value: The figure, in [0, 1].
        low: Lower end of its 95% interval.
        high: Upper end.
        detail: What it depends on: aggregate, threshold.
        report: Path of its report relative to the page, if there is one.
        baseline: Whether it is no scorer but what every scorer should beat.
    """

    scorer: str
    value: float
    low: float
    high: float
    detail: str
    report: str | None = None
    baseline: bool = False

    @property
    def shown(self) -> str:
        """The figure."""
        return percent(self.value)

    @property
    def shown_interval(self) -> str:
        """Its interval."""
        return interval(self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Scorers that were evaluated on the same data in the same way.

    Attributes:
        title: Of the evaluation.
        metric: The figure that ranks.
        entries: The best first; baselines among them.
    """

    title: str
    metric: str
    entries: tuple[Entry, ...]

    @property
    def plot(self) -> Markup:
        """All entries under each other."""
        rows = [
            Interval(name=each.scorer, value=each.value, low=each.low, high=each.high)
            for each in self.entries
        ]
        return interval_plot(
            rows,
            title=self.metric,
            x=Axis(label=self.metric, percent=True),
            note="Bars: 95% intervals.",
            width=520,
        )


def collect(folder: str | Path, page: str | Path) -> list[Board]:
    """Read every ``results.json`` below a folder.

    Results of the same command on the same data (by content) share a board.

    Args:
        folder: Searched with all its folders.
        page: Where the leaderboard will lie; links to reports are relative to it.

    Raises:
        DataError: There is none, or one cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("is not a folder", where=folder, hint="name the folder that holds evaluations")
    groups: dict[tuple[str, str, str], tuple[str, list[Entry]]] = {}
    for path in sorted(folder.rglob(RESULTS)):
        content = read_evaluation(path)
        report = path.with_name("report.html")
        link = os.path.relpath(report, Path(page).resolve().parent) if report.is_file() else None
        for metric, entries in _main_figures(content, link):
            key = content["command"], metric, "+".join(content.get("data", [str(path)]))
            groups.setdefault(key, (content["title"], []))[1].extend(entries)
    if not groups:
        raise DataError(f"holds no {RESULTS}", where=folder, hint="write one with stepcredit eval ... --out")
    return [
        Board(title=title, metric=metric, entries=tuple(_ranked(entries)))
        for (_, metric, _), (title, entries) in groups.items()
    ]


def render_leaderboard(boards: Sequence[Board], *, title: str = "Leaderboard") -> str:
    """The page."""
    return render_page("leaderboard.html", title=title, kind="leaderboard", boards=boards)


def _ranked(entries: Sequence[Entry]) -> list[Entry]:
    distinct: dict[tuple[str, str, float], Entry] = {}
    for each in entries:
        distinct.setdefault((each.scorer, each.detail, each.value), each)
    return sorted(distinct.values(), key=lambda each: -each.value)


def _main_figures(content: Mapping[str, Any], report: str | None) -> Iterator[tuple[str, list[Entry]]]:
    command = content["command"]
    if command == BEST_OF_N:
        yield _best_of_n(content, report)
    elif command == "eval prmbench":
        rows = [row for row in content["results"] if row["subset"] == "all" and row["metric"] == "prm_score"]
        published = [row for row in rows if "published" in str(row["threshold_from"])]
        yield "PRMScore", list(_entries(published, report))
    elif command == "eval processbench":
        yield "F1, threshold not chosen on the file", list(_process_bench(content["results"], report))
    else:
        for subset in content["counts"]:
            rows = [
                row
                for row in content["results"]
                if row["subset"] == subset and row["metric"] == "first_error_auc"
            ]
            yield f"AUC of the first wrong step, {subset}", list(_entries(rows, report))


def _best_of_n(content: Mapping[str, Any], report: str | None) -> tuple[str, list[Entry]]:
    largest = max(row["n"] for row in content["results"])
    chosen = {name: choice["aggregate"] for name, choice in content["choices"].items()}
    entries = []
    for row in content["results"]:
        is_baseline = (row["method"], row["n"]) in (("majority", largest), ("pass", 1))
        is_scorer = (
            row["method"] == "best-of-n" and row["n"] == largest and row["aggregate"] == chosen[row["scorer"]]
        )
        if is_baseline or is_scorer:
            name = row["scorer"] or {"majority": "majority vote", "pass": "single response"}[row["method"]]
            entries.append(
                Entry(
                    scorer=name,
                    value=row["accuracy"],
                    low=row["low"],
                    high=row["high"],
                    detail=row["aggregate"] or "",
                    report=None if is_baseline else report,
                    baseline=is_baseline,
                )
            )
    return f"Accuracy of best of {largest}", entries


def _process_bench(results: Sequence[Mapping[str, Any]], report: str | None) -> Iterator[Entry]:
    """Each scorer's F1 with an honest threshold: tuned elsewhere if there is such, else fixed.

    Mean over subsets where there are several.
    """
    rows = [row for row in results if row["metric"] == "f1" and "oracle" not in str(row["threshold_from"])]
    several = any(row["subset"] == "mean of subsets" for row in rows)
    for scorer in dict.fromkeys(row["scorer"] for row in rows):
        honest = [
            row
            for row in rows
            if row["scorer"] == scorer
            and row["quantity"] == "reward"
            # Alone, the data that a threshold was tuned on is no fair data to report it on.
            and (row["subset"] == "mean of subsets" or not several)
            and row["threshold_from"] != f"tuned on {row['subset']}"
        ]
        tuned = [row for row in honest if str(row["threshold_from"]).startswith("tuned")]
        yield from _entries((tuned or honest)[-1:], report)


def _entries(rows: Sequence[Mapping[str, Any]], report: str | None) -> Iterator[Entry]:
    for row in rows:
        if row["quantity"] == "reward" and row["value"] is not None:
            yield Entry(
                scorer=row["scorer"],
                value=row["value"],
                low=row["low"],
                high=row["high"],
                detail=row["threshold_from"] or "",
                report=report,
            )
