"""The plots of evaluation pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from stepcredit.evaluation.step_results import METRIC_NAMES
from stepcredit.reports.page import plain
from stepcredit.reports.plots import (
    Axis,
    Interval,
    Line,
    Mark,
    ReliabilityBin,
    Renderer,
    interval_plot,
    line_plot,
    reliability_plot,
)
from stepcredit.reports.plots.figure import figure

_MAJORITY = Mark("brown", "circle", dashed=True)
_ORACLE = Mark("grey", "none", dashed=True)
_SCORER_MARKS = (
    Mark("blue", "circle", strong=True),
    Mark("orange", "triangle", strong=True),
    Mark("green", "square", strong=True),
    Mark("purple", "diamond", strong=True),
    Mark("sky", "down"),
    Mark("blue", "square", dashed=True),
    Mark("orange", "circle", dashed=True),
    Mark("green", "triangle", dashed=True),
)


def scorer_marks(content: Mapping[str, Any]) -> dict[str, Mark]:
    """One look for each scorer, the same in all plots."""
    return {name: _SCORER_MARKS[index % len(_SCORER_MARKS)] for index, name in enumerate(content["choices"])}


def accuracy_plot(content: Mapping[str, Any], *, render: Renderer = figure) -> Markup:
    """Accuracy of every scorer, the vote and the oracle against n."""
    marks = scorer_marks(content)
    curves: list[tuple[str, Sequence[Mapping[str, Any]], Mark]] = []
    for name, mark in (("pass", _ORACLE), ("majority", _MAJORITY)):
        if name in content["curves"]:
            shown = "pass (oracle)" if name == "pass" else "majority vote"
            curves.append((shown, content["curves"][name], mark))
    curves += [(name, scorer["curve"], marks[name]) for name, scorer in content["diagnostics"].items()]
    lines = [
        Line(
            name=name,
            x=[point["n"] for point in curve],
            y=[point["accuracy"]["estimate"] for point in curve],
            low=[point["accuracy"]["low"] for point in curve],
            high=[point["accuracy"]["high"] for point in curve],
            mark=mark,
        )
        for name, curve, mark in curves
    ]
    return line_plot(
        lines,
        title="Accuracy against the number of responses",
        x=Axis(label="responses to choose from (n)", log2=True),
        y=Axis(label="accuracy", percent=True),
        note="Exact over all subsets of n; bands: 95% intervals over problems.",
        height=250,
        render=render,
    )


def score_plot(content: Mapping[str, Any]) -> Markup:
    """How the score of the chosen response rises with n."""
    marks = scorer_marks(content)
    lines = []
    for name, scorer in content["diagnostics"].items():
        scores = [point["chosen_score"] for point in scorer["curve"]]
        rise = scores[-1] - scores[0]
        lines.append(
            Line(
                name=name,
                x=[point["n"] for point in scorer["curve"]],
                y=[(score - scores[0]) / rise if rise > 0 else None for score in scores],
                mark=marks[name],
            )
        )
    return line_plot(
        lines,
        title="Score of the chosen response",
        x=Axis(label="responses to choose from (n)", log2=True),
        y=Axis(label="score, as a share of its rise from one response to all", percent=True),
        note=(
            "The score always rises with n. If accuracy falls at the same time, the scorer is over-optimised."
        ),
        height=250,
    )


def calibration_plot(name: str, diagnosed: Mapping[str, Any]) -> Markup:
    """Predicted against observed share of right responses."""
    bins = diagnosed["calibration"]
    return reliability_plot(
        [
            ReliabilityBin(predicted=predicted, observed=observed, count=count)
            for predicted, observed, count in zip(
                bins["predicted"], bins["observed"], bins["counts"], strict=True
            )
            if count
        ],
        title=f"{name}: sigmoid of the reward, and the share right",
        note=(
            f"Expected calibration error {plain(bins['error'])}; the area of a mark grows with its "
            "number of responses."
        ),
    )


_METRIC_TITLES = {
    "first_error_auc": "AUC of first wrong steps against the right steps before them",
    "auc": "AUC of wrong steps against right ones",
    "f1": "F1 of finding the first error",
    "prm_score": "PRMScore",
    "lowest_is_first_wrong": "Responses whose lowest step is the first wrong one",
    "minimum_is_last": "Responses whose lowest step is the last one",
}


def metric_plots(results: Sequence[Mapping[str, Any]], thresholds: str) -> Iterator[Markup]:
    """The main metrics, all scorers under each other.

    Args:
        results: At most one row of each metric for each part of the data and scorer.
        thresholds: Where the thresholds of those that need one are from.
    """
    for metric, title in _METRIC_TITLES.items():
        rows = [row for row in results if row["metric"] == metric]
        note = "Scores of individual steps; bars: 95% intervals over problems."
        if any(row["value"] is not None for row in rows):
            yield interval_plot(
                [
                    Interval(name=_row_name(row), value=row["value"], low=row["low"], high=row["high"])
                    for row in rows
                ],
                title=title,
                x=Axis(label=METRIC_NAMES[metric], low=0.0, high=1.0),
                note=f"{thresholds} {note}" if rows[0]["threshold_from"] else note,
                reference=0.5 if metric.endswith("auc") else None,
            )


def _row_name(row: Mapping[str, Any]) -> str:
    return f"{row['subset'].replace('_', ' ')}, {row['scorer']}"
