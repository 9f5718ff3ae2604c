"""The pictures of a finding, for a page or as files of their own."""

from __future__ import annotations

from dataclasses import replace

from markupsafe import Markup

from stepcredit.reports.plots import (
    Axis,
    Interval,
    Line,
    Point,
    Renderer,
    interval_plot,
    line_plot,
    scatter_plot,
)
from stepcredit.reports.plots.figure import figure, mark_of
from stepcredit_study.pages.finding import Estimate, Plot, Series

_MOST_TICKS = 8
_FOREST = 1.25  # names and numbers stand beside the scale


def draw(plot: Plot, *, width: float = 560, render: Renderer = figure) -> Markup:
    """A plot as a figure for a page.

    Args:
        width: Of the picture, in units in which text is 12 high.
        render: ``standalone`` draws a file.
    """
    plot = _cut(plot)
    if plot.kind == "intervals":
        return interval_plot(
            [
                Interval(name=series.name, value=estimate.mean, low=estimate.low, high=estimate.high)
                for series in plot.series
                for estimate in series.y
            ],
            title=plot.title,
            x=Axis(label=plot.x_label, percent=plot.percent),
            note=_note(plot, "Bars"),
            reference=plot.reference,
            width=_FOREST * width,
            names_beside=True,
            render=render,
        )
    x = _horizontal(plot)
    y = Axis(label=plot.y_label, percent=plot.percent)
    if plot.kind == "points":
        return scatter_plot(
            [point for index, series in enumerate(plot.series) for point in _points(series, index)],
            title=plot.title,
            x=x,
            y=y,
            note=_note(plot, "Bars"),
            width=width,
            height=0.58 * width,
            render=render,
        )
    return line_plot(
        [_line(series) for series in plot.series],
        title=plot.title,
        x=x,
        y=y,
        note=_note(plot, "Bands"),
        width=width,
        height=0.58 * width,
        render=render,
    )


def _horizontal(plot: Plot) -> Axis:
    positions = sorted({value for series in plot.series for value in series.x})
    ticks = tuple(positions) if plot.kind == "curves" and len(positions) <= _MOST_TICKS else None
    return Axis(label=plot.x_label, log2=plot.x_log2, ticks=ticks)


def _line(series: Series) -> Line:
    return Line(
        name=series.name,
        x=series.x,
        y=[estimate.mean for estimate in series.y],
        low=[estimate.low for estimate in series.y],
        high=[estimate.high for estimate in series.y],
    )


def _points(series: Series, index: int) -> list[Point]:
    """The points of a series look alike; the last one bears its name."""
    last = len(series.x) - 1
    return [
        Point(
            name=series.name if place == last else "",
            x=x,
            y=estimate.mean,
            low=estimate.low,
            high=estimate.high,
            mark=mark_of(index, None),
        )
        for place, (x, estimate) in enumerate(zip(series.x, series.y, strict=True))
    ]


def _cut(plot: Plot) -> Plot:
    """Intervals of shares reach no further than 1, where Student's may; tables have them whole."""
    if not plot.percent:
        return plot

    def cut(estimate: Estimate) -> Estimate:
        return (
            estimate
            if estimate.high is None
            else replace(estimate, high=max(estimate.mean, min(1.0, estimate.high)))
        )

    series = tuple(replace(line, y=tuple(map(cut, line.y))) for line in plot.series)
    return replace(plot, series=series)


def _note(plot: Plot, what: str) -> str:
    estimates: list[Estimate] = [estimate for series in plot.series for estimate in series.y]
    seeds = max((len(estimate.values) for estimate in estimates), default=0)
    if seeds < 2:
        return "One seed, so there is no interval."
    is_cut = plot.percent and any(estimate.high == 1.0 for estimate in estimates)
    return f"{what}: 95% intervals over {seeds} seeds{', cut at 100%' if is_cut else ''}."
