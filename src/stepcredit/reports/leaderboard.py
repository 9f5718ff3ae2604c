"""The leaderboard: every evaluation below a folder, the scorers of each ranked by its main figure."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stepcredit.errors import DataError
from stepcredit.evaluation.step_results import ALL, MEAN_OF_SUBSETS
from stepcredit.reports.evaluation import BEST_OF_N, read_evaluation
from stepcredit.reports.page import interval, percent, render_page
from stepcredit.reports.plots import Axis, Interval, interval_plot
from stepcredit.reports.step_evaluation import PRM_BENCH, PROCESS_BENCH, main_rows

RESULTS = "results.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A scorer's main figure in one evaluation.

    Attributes:
        value: The figure, in [0, 1].
        low: Lower end of its 95% interval, if there is one.
        detail: What it depends on: aggregate, threshold.
        report: Path of its report relative to the page, if there is one.
        baseline: Whether it is no scorer but what every scorer should beat.
    """

    scorer: str
    value: float
    low: float | None
    high: float | None
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
            Interval(name=entry.scorer, value=entry.value, low=entry.low, high=entry.high)
            for entry in self.entries
        ]
        return interval_plot(
            rows, title=self.metric, x=Axis(label=self.metric, percent=True), note="Bars: 95% intervals."
        )


def collect(folder: str | Path, page: str | Path) -> list[Board]:
    """Read every ``results.json`` below a folder.

    Results of the same command on the same problems of the same data (by content) share a board.

    Args:
        page: Where the leaderboard will lie; links to reports are relative to it.

    Raises:
        DataError: There is none, or one cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("is not a folder", where=folder, hint="name the folder that holds evaluations")
    groups: dict[tuple[str, ...], tuple[str, list[Entry]]] = {}
    for path in sorted(folder.rglob(RESULTS)):
        content = read_evaluation(path)
        report = path.with_name("report.html")
        link = os.path.relpath(report, os.path.dirname(os.path.realpath(page))) if report.is_file() else None
        try:
            for metric, entries in _main_figures(content, link):
                key = metric, content["command"], "+".join(content.get("data", [str(path)])), _extent(content)
                groups.setdefault(key, (content["title"], []))[1].extend(entries)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(
                f"does not hold what an evaluation writes ({type(error).__name__}: {error})",
                where=path,
                hint="write it again, or remove it from the folder",
            ) from error
    if not groups:
        raise DataError(f"holds no {RESULTS}", where=folder, hint="write one with stepcredit eval ... --out")
    return [
        Board(title=title, metric=metric, entries=tuple(_ranked(entries)))
        for (metric, *_), (title, entries) in groups.items()
    ]


def render_leaderboard(boards: Sequence[Board], *, title: str = "Leaderboard") -> str:
    """The page."""
    return render_page("leaderboard.html", title=title, kind="leaderboard", boards=boards)


def _ranked(entries: Sequence[Entry]) -> list[Entry]:
    distinct: dict[tuple[str, str, float], Entry] = {}
    for entry in entries:
        distinct.setdefault((entry.scorer, entry.detail, entry.value), entry)
    return sorted(distinct.values(), key=lambda entry: -entry.value)


def _extent(content: Mapping[str, Any]) -> str:
    """Which problems and responses of the data are reported, as far as results say."""
    names = ("subsets", "num_problems", "num_responses", "num_distinct", "responses", "counts")
    return json.dumps({name: content.get(name) for name in names}, sort_keys=True)


def _main_figures(content: Mapping[str, Any], report: str | None) -> Iterator[tuple[str, list[Entry]]]:
    command = content["command"]
    if command == BEST_OF_N:
        yield _best_of_n(content, report)
        return
    rows = main_rows(content)
    if command == PRM_BENCH:
        yield "PRMScore", list(_entries([row for row in rows if row["subset"] == ALL], report))
    elif command == PROCESS_BENCH:
        several = any(row["subset"] == MEAN_OF_SUBSETS for row in rows)
        shown = [row for row in rows if row["subset"] == MEAN_OF_SUBSETS or not several]
        yield "F1, threshold not chosen on the file", list(_entries(shown, report))
    else:
        for subset in content["counts"]:
            shown = [row for row in rows if row["subset"] == subset]
            yield f"AUC of the first wrong step, {subset}", list(_entries(shown, report))


def _best_of_n(content: Mapping[str, Any], report: str | None) -> tuple[str, list[Entry]]:
    largest = max(row["n"] for row in content["results"])
    chosen = {name: choice["aggregate"] for name, choice in content["choices"].items()}
    entries = []
    for row in content["results"]:
        # What every scorer should beat stands on the board too.
        is_baseline = (row["method"], row["n"]) in (("majority", largest), ("pass", 1))
        is_scorer = (
            row["method"] == "best-of-n" and row["n"] == largest and row["aggregate"] == chosen[row["scorer"]]
        )
        if is_baseline or is_scorer:
            name = row["scorer"] or {"majority": "majority vote", "pass": "single response"}[row["method"]]
            entries.append(
                Entry(
                    scorer=name,
                    value=float(row["accuracy"]),
                    low=_number_or_none(row["low"]),
                    high=_number_or_none(row["high"]),
                    detail=row["aggregate"] or "",
                    report=None if is_baseline else report,
                    baseline=is_baseline,
                )
            )
    return f"Accuracy of best of {largest}", entries


def _entries(rows: Sequence[Mapping[str, Any]], report: str | None) -> Iterator[Entry]:
    for row in rows:
        if row["value"] is not None:
            yield Entry(
                scorer=row["scorer"],
                value=float(row["value"]),
                low=_number_or_none(row["low"]),
                high=_number_or_none(row["high"]),
                detail=row["threshold_from"] or "",
                report=report,
            )


def _number_or_none(value: Any) -> float | None:
    return None if value is None else float(value)
