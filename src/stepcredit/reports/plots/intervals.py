"""Estimates with error bars, one a row (a forest plot)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stepcredit.reports.plots.axes import CHARACTER_WIDTH, Axis, finite, known, text
from stepcredit.reports.plots.figure import Mark, figure, interval_text, mark_of
from stepcredit.reports.plots.svg import element, join

_ROW = 42.0
_LINE = 15.0
_TOP = 6.0
_BOTTOM = 46.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate.

    Attributes:
        name: What is estimated.
        value: The estimate; ``None`` is shown as absent.
        low: Lower end of its interval.
        high: Upper end.
        mark: How it looks; by default all rows look alike.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    mark: Mark | None = None


def interval_plot(
    rows: Sequence[Interval],
    *,
    title: str,
    x: Axis,
    note: str = "",
    reference: float | None = None,
    width: float = 360,
) -> Markup:
    """Estimates under each other on one scale, each with its error bar and its number.

    Args:
        rows: From top to bottom.
        title: Says what is shown.
        x: The scale.
        note: Says what the bars are.
        reference: A value to compare with (chance, no difference), marked by a vertical line.
        width: Of the picture, in units in which text is 12 high.
    """
    written = [_written(row, x) for row in rows]
    space = width - 16
    crowded = any(
        CHARACTER_WIDTH * (len(row.name) + len(value) + 2) > space
        for row, value in zip(rows, written, strict=True)
    )
    line = _LINE if crowded else 0.0  # where a name leaves no room, all numbers go under the names
    height = _TOP + (_ROW + line) * len(rows) + _BOTTOM
    floor = height - _BOTTOM + 4
    values = known([value for row in rows for value in (row.value, row.low, row.high)])
    scale = x.scale([*values, *known([reference])], 8, width - 8)
    parts = []
    for tick in scale.ticks:
        parts += [
            element("line", class_="grid", x1=scale(tick), x2=scale(tick), y1=_TOP, y2=floor),
            text(x.write_tick(tick), scale(tick), floor + 17, anchor=_anchor(scale(tick), width)),
        ]
    parts.append(element("line", class_="axis", x1=8, x2=width - 8, y1=floor, y2=floor))
    if reference is not None:
        at = scale(reference)
        parts.append(element("line", class_="reference", x1=at, x2=at, y1=_TOP, y2=floor))
    table = []
    for index, (row, value) in enumerate(zip(rows, written, strict=True)):
        top = _TOP + (_ROW + line) * index
        if row.value is not None and finite(row.value):
            table.append((row.name, x.write(row.value), interval_text(x, row.low, row.high)))
            ends = [scale(end) for end in known([row.low, row.high])]
            parts.append(_bar(row, scale(row.value), ends, top + line + 27))
        parts += [
            text(_shortened(row.name, space), 8, top + 13, class_="name"),
            text(value, 8, top + line + 13, class_="value")
            if crowded
            else text(value, width - 8, top + 13, anchor="end", class_="value"),
        ]
    parts.append(text(x.label, width - 8, height - 6, anchor="end", class_="label"))
    return figure(
        title=title,
        picture=join(parts),
        width=width,
        height=height,
        header=("Name", x.label, "95% interval"),
        rows=table,
        note=note,
    )


def _written(row: Interval, x: Axis) -> str:
    if row.value is None or not finite(row.value):
        return "absent"
    interval = interval_text(x, row.low, row.high)
    return x.write(row.value) + (f"  ({interval})" if interval != "–" else "")


def _shortened(name: str, space: float) -> str:
    """The name, cut to what fits; the table of numbers has all of it."""
    room = int(space / CHARACTER_WIDTH)
    return name if len(name) <= room else name[: room - 1] + "…"


def _anchor(position: float, width: float) -> str:
    """Keeps the outermost tick numbers inside the picture."""
    if position < 16:
        return "start"
    return "end" if position > width - 16 else "middle"


def _bar(row: Interval, at: float, ends: Sequence[float], middle: float) -> Markup:
    mark = mark_of(0, row.mark)
    parts = []
    if len(ends) == 2:
        low, high = ends
        parts.append(element("line", class_=f"error {mark.colour}", x1=low, x2=high, y1=middle, y2=middle))
        parts += [
            element("line", class_=f"error {mark.colour}", x1=end, x2=end, y1=middle - 4, y2=middle + 4)
            for end in ends
        ]
    parts.append(mark.draw(at, middle, 4.8))
    return element("g", *parts)
