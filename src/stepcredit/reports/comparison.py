"""The report of ``stepcredit compare``: accuracy, cost, and what was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from stepcredit.reports.page import interval, percent, render_page
from stepcredit.reports.plots import Axis, Point, scatter_plot


def render_comparison(content: Mapping[str, Any]) -> str:
    """The page.

    Args:
        content: What ``comparison.json`` holds.
    """
    sizes = _sizes(content)
    return render_page(
        "comparison.html",
        title="Comparison of reward models",
        kind="comparison",
        sizes=sizes,
        rows=[_row(name, accuracy, sizes) for name, accuracy in content["references"].items()]
        + [_row(method["name"], method["accuracy"], sizes, method) for method in content["methods"]],
        methods=content["methods"],
        trained=[method for method in content["methods"] if method["chosen"] is not None],
        budget=content["budget"],
        choose_at=content["choose_at"],
        plot=accuracy_against_cost(content),
    )


def comparison_markdown(content: Mapping[str, Any]) -> str:
    """The same as Markdown: accuracy, cost and chosen settings, and every setting that was tried."""
    sizes = _sizes(content)
    lines = [
        "# Comparison of reward models",
        "",
        f"{content['budget']} settings of each trained method were tried on development problems (best-of-"
        f"{content['choose_at']} accuracy there); the best of each is reported on test problems. Cells: "
        "accuracy in per cent with its 95% interval over problems. Cost: operations to collect, label and "
        "train, relative to the first trained method, each distinct prefix labelled once (in brackets: "
        "every prefix).",
        "",
        "| method | " + " | ".join(f"@{n}" for n in sizes) + " | score | cost | chosen |",
        "| --- |" + " --- |" * (len(sizes) + 3),
    ]
    for name, accuracy in content["references"].items():
        lines.append(f"| {name} | " + " | ".join(_cells(accuracy, sizes)) + " | | | |")
    for method in content["methods"]:
        cost, chosen = "", ""
        if method["chosen"] is not None:
            relative, unshared = method["cost"]["relative"], method["cost"]["relative_unshared"]
            cost = f"{relative:.2f} ({unshared:.2f})" if relative else ""
            chosen = _settings(method["trials"][method["chosen"]]["settings"])
        cells = " | ".join(_cells(method["accuracy"], sizes))
        lines.append(f"| {method['name']} | {cells} | {method['aggregate']} | {cost} | {chosen} |")
    lines += [
        "",
        "## What was tried",
        "",
        "| method | settings | development accuracy |",
        "| --- | --- | --- |",
    ]
    for method in content["methods"]:
        for trial in method["trials"]:
            tried = f"{_settings(trial['settings'])} | {100 * trial['accuracy']:.1f} by {trial['aggregate']}"
            lines.append(f"| {method['name']} | {tried} |")
    return "\n".join(lines) + "\n"


def _sizes(content: Mapping[str, Any]) -> list[int]:
    return sorted({int(n) for method in content["methods"] for n in method["accuracy"]})


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())


def _cells(accuracy: Mapping[Any, Sequence[Any]], sizes: Sequence[int]) -> list[str]:
    known = {int(size): values for size, values in accuracy.items()}
    return [_cell(*known[n]) if n in known else "" for n in sizes]


def _cell(value: float, low: float | None, high: float | None) -> str:
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}{interval}"


def accuracy_against_cost(content: Mapping[str, Any]) -> Markup:
    """Accuracy of the trained methods at the largest n against their total cost, relative to the first."""
    points = []
    n = max(_sizes(content), default=1)
    for method in content["methods"]:
        accuracy = {int(size): values for size, values in method["accuracy"].items()}
        if method["chosen"] is None or n not in accuracy or not method["cost"]["relative"]:
            continue
        value, low, high = accuracy[n]
        points.append(Point(name=method["name"], x=method["cost"]["relative"], y=value, low=low, high=high))
    return scatter_plot(
        points,
        title="Accuracy against cost",
        x=Axis(label="Cost of data and training, relative to the first method", log2=True),
        y=Axis(label=f"Best-of-{n} accuracy", percent=True),
        note="Bars: 95% intervals over problems.",
        width=520,
    )


def _row(
    name: str, accuracy: Mapping[Any, Any], sizes: list[int], method: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    known = {int(n): values for n, values in accuracy.items()}
    return {
        "name": name,
        "aggregate": "" if method is None else method["aggregate"],
        "cells": [
            (percent(known[n][0]), interval(known[n][1], known[n][2])) if n in known else ("", "")
            for n in sizes
        ],
    }
