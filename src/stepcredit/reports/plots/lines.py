"""Curves with interval bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stepcredit.reports.plots.axes import Axis, Frame, Scale, finite, known
from stepcredit.reports.plots.figure import Drawing, Mark, Renderer, figure, interval_text, mark_of
from stepcredit.reports.plots.svg import element, join, path_of

_MANY_POINTS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve.

    Attributes:
        x: Positions, rising.
        y: Heights, one a position; one that is ``None`` or not finite leaves a gap.
        low: Lower ends of the intervals, one a position, or nothing.
        mark: How it looks; by default by its place among the lines.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    mark: Mark | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.x), len(self.y), len(self.low or self.x), len(self.high or self.x)}
        if len(lengths) != 1:
            raise ValueError(f"line {self.name!r}: x, y, low and high differ in length")

    def interval(self, index: int) -> tuple[float, float] | None:
        """The interval at a position, if it is known."""
        if not self.low or not self.high or not finite(self.low[index], self.high[index]):
            return None
        low, high = self.low[index], self.high[index]
        assert low is not None
        assert high is not None
        return low, high


def line_plot(
    lines: Sequence[Line],
    *,
    title: str,
    x: Axis,
    y: Axis,
    note: str = "",
    with_legend: bool = True,
    width: float = 360,
    height: float = 265,
    render: Renderer = figure,
) -> Markup:
    """Curves with shaded intervals, e.g. accuracy of best-of-n against n.

    Args:
        lines: Drawn in this order, the last on top.
        with_legend: Off where several plots share one, made with :func:`legend`.
        width: Of the picture, in units in which text is 12 high; it scales with the page.
        render: Makes the result of the drawing; by default a figure for a page.
    """
    frame = Frame(width=width, height=height)
    x_scale = frame.x_scale(x, [value for line in lines for value in known(line.x)])
    heights = [value for line in lines for value in known([*line.y, *line.low, *line.high])]
    y_scale = frame.y_scale(y, heights)
    marks = [mark_of(index, line.mark) for index, line in enumerate(lines)]
    parts = [frame.draw(x, y, x_scale, y_scale)]
    parts += [_band(line, mark, x_scale, y_scale) for line, mark in zip(lines, marks, strict=True)]
    parts += [_curve(line, mark, x_scale, y_scale, x, y) for line, mark in zip(lines, marks, strict=True)]
    rows = []
    for line in lines:
        for index, (position, value) in enumerate(zip(line.x, line.y, strict=True)):
            if value is not None and finite(position, value):
                low, high = line.interval(index) or (None, None)
                interval = interval_text(y, low, high)
                rows.append((line.name, x.write(position), y.write(value), interval))
    key = [(line.name, mark) for line, mark in zip(lines, marks, strict=True)]
    return render(
        Drawing(
            title=title,
            picture=join(parts),
            width=width,
            height=height,
            header=("Series", x.label, y.label, "95% interval"),
            rows=rows,
            note=note,
            key=key if with_legend and len(lines) > 1 else (),
        )
    )


def _runs(line: Line, *, with_interval: bool) -> list[list[int]]:
    """Indices of stretches without a gap."""
    runs: list[list[int]] = [[]]
    for index, (position, value) in enumerate(zip(line.x, line.y, strict=True)):
        there = finite(position, value) and (not with_interval or line.interval(index) is not None)
        if there:
            runs[-1].append(index)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _band(line: Line, mark: Mark, x: Scale, y: Scale) -> Markup:
    parts = []
    for run in _runs(line, with_interval=True):
        ends = [(line.x[index], *(line.interval(index) or (0.0, 0.0))) for index in run]
        upper = [(x(position), y(high)) for position, _, high in ends]
        lower = [(x(position), y(low)) for position, low, _ in reversed(ends)]
        parts.append(element("path", class_=f"band {mark.colour}", d=path_of(upper + lower, closed=True)))
    return join(parts)


def _curve(line: Line, mark: Mark, x: Scale, y: Scale, x_axis: Axis, y_axis: Axis) -> Markup:
    parts = []
    crowded = len(line.x) > _MANY_POINTS
    for run in _runs(line, with_interval=False):
        points = [(line.x[index], line.y[index] or 0.0) for index in run]
        parts.append(
            element("path", class_=mark.line_class, d=path_of((x(a), y(b)) for a, b in points), fill="none")
        )
        if crowded and len(run) > 1:
            continue
        for index, (position, value) in zip(run, points, strict=True):
            interval = line.interval(index)
            title = f"{line.name}, {x_axis.write(position)}: {y_axis.write(value)}"
            if interval is not None:
                title += f" ({y_axis.write(interval[0])} to {y_axis.write(interval[1])})"
            parts.append(mark.draw(x(position), y(value), 4.4 if mark.strong else 3.8, title))
    return element("g", *parts, class_="series")
