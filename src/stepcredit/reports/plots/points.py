"""Scatter plots with named points, and reliability plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stepcredit.reports.plots.axes import CHARACTER_WIDTH, Axis, Frame, Scale, finite, known, text
from stepcredit.reports.plots.figure import Drawing, Mark, Renderer, figure, interval_text, mark_of
from stepcredit.reports.plots.svg import element, join

_LETTER_HEIGHT = 12.0
_INSET = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A named point, e.g. a method at its cost and accuracy.

    Attributes:
        low: Lower end of the height's interval.
        mark: How it looks; by default by its place among the points.
    """

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    mark: Mark | None = None


def scatter_plot(
    points: Sequence[Point],
    *,
    title: str,
    x: Axis,
    y: Axis,
    note: str = "",
    width: float = 360,
    height: float = 265,
    render: Renderer = figure,
) -> Markup:
    """Named points with error bars, e.g. accuracy against cost.

    Args:
        points: Those that are not finite are left out.
    """
    shown = [point for point in points if finite(point.x, point.y) and (point.x > 0 or not x.log2)]
    frame = Frame(width=width, height=height)
    x_scale = frame.x_scale(x, [point.x for point in shown], inset=_INSET)
    y_scale = frame.y_scale(
        y, known([value for point in shown for value in (point.y, point.low, point.high)])
    )
    parts = [frame.draw(x, y, x_scale, y_scale)]
    taken = [_box(x_scale(point.x) - 5, y_scale(point.y), 10, "start") for point in shown]
    table = []
    for index, point in enumerate(shown):
        interval = interval_text(y, point.low, point.high)
        table.append((point.name, x.write(point.x), y.write(point.y), interval))
        mark = mark_of(index, point.mark)
        title_text = f"{point.name}: {y.write(point.y)} at {x.write(point.x)}"
        parts.append(_with_error(point, mark, 5, title_text, x_scale, y_scale))
        parts.append(_name(point, x_scale, y_scale, frame, taken))
    return render(
        Drawing(
            title=title,
            picture=join(parts),
            width=width,
            height=height,
            header=("Name", x.label, y.label, "95% interval"),
            rows=table,
            note=note,
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Responses or steps whose predicted probability falls into one bin.

    Attributes:
        predicted: Mean predicted probability.
        observed: Share that is right.
        low: Lower end of the share's interval.
    """

    predicted: float
    observed: float
    count: int
    low: float | None = None
    high: float | None = None


def reliability_plot(bins: Sequence[ReliabilityBin], *, title: str, note: str = "") -> Markup:
    """Observed shares against predicted probabilities; on the diagonal they agree.

    Args:
        bins: Empty ones (``count`` 0) are left out; a mark's area grows with the count.
    """
    shown = [one for one in bins if one.count > 0 and finite(one.predicted, one.observed)]
    x, y = (
        Axis(label=label, percent=True, low=0.0, high=1.0)
        for label in ("Predicted probability", "Share that is right")
    )
    frame = Frame(width=360, height=300)
    x_scale, y_scale = frame.x_scale(x, ()), frame.y_scale(y, ())
    diagonal = element("line", class_="reference", x1=x_scale(0), y1=y_scale(0), x2=x_scale(1), y2=y_scale(1))
    parts = [frame.draw(x, y, x_scale, y_scale), diagonal]
    largest = max((one.count for one in shown), default=1)
    table = []
    for one in shown:
        interval = interval_text(y, one.low, one.high)
        table.append((x.write(one.predicted), y.write(one.observed), interval, f"{one.count:,}"))
        point = Point(name="", x=one.predicted, y=one.observed, low=one.low, high=one.high)
        size = 3 + 5 * (one.count / largest) ** 0.5
        title_text = f"predicted {table[-1][0]}, observed {table[-1][1]}, {one.count:,} in the bin"
        parts.append(_with_error(point, Mark("blue"), size, title_text, x_scale, y_scale))
    return figure(
        Drawing(
            title=title,
            picture=join(parts),
            width=frame.width,
            height=frame.height,
            header=(x.label, y.label, "95% interval", "Count"),
            rows=table,
            note=note,
        )
    )


def _with_error(point: Point, mark: Mark, size: float, title: str, x: Scale, y: Scale) -> Markup:
    parts = []
    low, high = point.low, point.high
    at = x(point.x)
    if low is not None and high is not None and finite(low, high):
        parts.append(element("line", class_=f"error {mark.colour}", x1=at, x2=at, y1=y(low), y2=y(high)))
        parts += [
            element("line", class_=f"error {mark.colour}", x1=at - 4, x2=at + 4, y1=y(end), y2=y(end))
            for end in (low, high)
        ]
    parts.append(mark.draw(at, y(point.y), size, title))
    return element("g", *parts)


def _box(x: float, y: float, width: float, anchor: str) -> tuple[float, float, float, float]:
    left = {"start": x, "end": x - width, "middle": x - width / 2}[anchor]
    return left, y - _LETTER_HEIGHT / 2, left + width, y + _LETTER_HEIGHT / 2


def _name(
    point: Point, x: Scale, y: Scale, frame: Frame, taken: list[tuple[float, float, float, float]]
) -> Markup:
    """The point's name where it hides no other name or point: right, left, above, or below it."""
    at, level = x(point.x), y(point.y)
    length = CHARACTER_WIDTH * len(point.name)
    places = [
        (at + 10, level, "start"),
        (at - 10, level, "end"),
        (at, level - 15, "middle"),
        (at, level + 15, "middle"),
        (at + 10, level - 13, "start"),
        (at + 10, level + 13, "start"),
        (at - 10, level - 13, "end"),
        (at - 10, level + 13, "end"),
    ]

    def hidden(place: tuple[float, float, str]) -> int:
        left, top, right, bottom = _box(place[0], place[1], length, place[2])
        outside = left < frame.left or right > frame.width or top < frame.top - 10
        clashes = sum(left < c and a < right and top < d and b < bottom for a, b, c, d in taken)
        return clashes + 10 * outside

    best = min(places, key=hidden)
    taken.append(_box(best[0], best[1], length, best[2]))
    return text(point.name, best[0], best[1] + 4, anchor=best[2], class_="name")
