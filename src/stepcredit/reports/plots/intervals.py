"""Estimates with error bars, one per row (a forest plot)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stepcredit.reports.plots.axes import CHARACTER_WIDTH, Axis, Scale, finite, known, text
from stepcredit.reports.plots.figure import Drawing, Mark, Renderer, figure, interval_text, mark_of
from stepcredit.reports.plots.svg import element, join

_ROW = 42.0
_LINE = 15.0
_BESIDE_ROW = 24.0
_BESIDE_CHARACTER = 1.1 * CHARACTER_WIDTH
_TOP = 6.0
_BOTTOM = 46.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate.

    Attributes:
        value: The estimate; ``None`` is shown as absent.
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
    names_beside: bool = False,
    render: Renderer = figure,
) -> Markup:
    """Estimates under each other on one scale, each with its error bar and its number.

    Args:
        reference: A value to compare with (chance, no difference), marked by a vertical line.
        width: Of the picture, in units in which text is 12 high.
        names_beside: Names to the left of the bars and numbers to their right, for wide pictures;
            otherwise above the bars.
    """
    written = [_written(row, x) for row in rows]
    names = [row.name for row in rows]
    layout = _beside(names, written, width) if names_beside else _above(names, written, width)
    height = _TOP + layout.row * len(rows) + _BOTTOM
    floor = height - _BOTTOM + 4
    values = known([value for row in rows for value in (row.value, row.low, row.high)])
    scale = x.scale([*values, *known([reference])], layout.left, layout.right)
    parts = _axis(scale, x, reference, layout, floor, width)
    table = []
    for index, (row, value) in enumerate(zip(rows, written, strict=True)):
        top = _TOP + layout.row * index
        if row.value is not None and finite(row.value):
            table.append((row.name, x.write(row.value), interval_text(x, row.low, row.high)))
            ends = [scale(end) for end in known([row.low, row.high])]
            parts.append(_bar(row, scale(row.value), ends, top + layout.bar, layout.mark))
        parts += [
            text(_shortened(row.name, layout.name_space), 8, top + layout.name, class_="name"),
            text(value, 8, top + layout.value, class_="value")
            if layout.value_left
            else text(value, width - 8, top + layout.value, anchor="end", class_="value"),
        ]
    parts.append(text(x.label, layout.right, height - 6, anchor="end", class_="label"))
    return render(
        Drawing(
            title=title,
            picture=join(parts),
            width=width,
            height=height,
            header=("Name", x.label, "95% interval"),
            rows=table,
            note=note,
        )
    )


def _axis(
    scale: Scale, x: Axis, reference: float | None, layout: _Layout, floor: float, width: float
) -> list[Markup]:
    parts = []
    for tick in _apart(scale, x):
        at = scale(tick)
        parts += [
            element("line", class_="grid", x1=at, x2=at, y1=_TOP, y2=floor),
            text(x.write_tick(tick), at, floor + 17, anchor=_anchor(at, width)),
        ]
    parts.append(element("line", class_="axis", x1=layout.left, x2=layout.right, y1=floor, y2=floor))
    if reference is not None:
        at = scale(reference)
        parts.append(element("line", class_="reference", x1=at, x2=at, y1=_TOP, y2=floor))
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where things stand: heights within a row of ``row``, the scale from ``left`` to ``right``."""

    row: float
    left: float
    right: float
    bar: float
    name: float
    value: float
    name_space: float
    value_left: bool = False
    mark: float = 4.8


def _above(names: Sequence[str], written: Sequence[str], width: float) -> _Layout:
    space = width - 16
    crowded = any(
        CHARACTER_WIDTH * (len(name) + len(value) + 2) > space
        for name, value in zip(names, written, strict=True)
    )
    line = _LINE if crowded else 0.0  # where a name leaves no room, all numbers go under the names
    return _Layout(
        row=_ROW + line,
        left=8,
        right=width - 8,
        bar=line + 27,
        name=13,
        value=line + 13,
        name_space=space,
        value_left=crowded,
    )


def _beside(names: Sequence[str], written: Sequence[str], width: float) -> _Layout:
    name_space = min(0.4 * width, _BESIDE_CHARACTER * max(map(len, names), default=0))
    value_space = _BESIDE_CHARACTER * max(map(len, written), default=0)
    return _Layout(
        row=_BESIDE_ROW,
        left=8 + name_space + 16,
        right=width - 8 - value_space - 16,
        bar=_BESIDE_ROW / 2,
        name=_BESIDE_ROW / 2 + 4,
        value=_BESIDE_ROW / 2 + 4,
        name_space=name_space,
        mark=3.8,
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


def _apart(scale: Scale, x: Axis) -> Sequence[float]:
    """As many of the ticks as have room for their numbers."""
    ticks = scale.ticks
    if len(ticks) < 2:
        return ticks
    # Twice a number's width: the outermost numbers stand inside their ticks, next to their neighbours.
    widest = 2 * CHARACTER_WIDTH * (max(len(x.write_tick(tick)) for tick in ticks) + 1)
    every = math.ceil(widest / max(1.0, scale(ticks[1]) - scale(ticks[0])))
    return ticks[::every]


def _anchor(position: float, width: float) -> str:
    """Keeps the outermost tick numbers inside the picture."""
    if position < 16:
        return "start"
    return "end" if position > width - 16 else "middle"


def _bar(row: Interval, at: float, ends: Sequence[float], middle: float, size: float) -> Markup:
    mark = mark_of(0, row.mark)
    parts = []
    if len(ends) == 2:
        low, high = ends
        parts.append(element("line", class_=f"error {mark.colour}", x1=low, x2=high, y1=middle, y2=middle))
        parts += [
            element("line", class_=f"error {mark.colour}", x1=end, x2=end, y1=middle - 4, y2=middle + 4)
            for end in ends
        ]
    parts.append(mark.draw(at, middle, size))
    return element("g", *parts)
