"""Histograms, one strip per group on a shared scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stepcredit.reports.plots.axes import Axis, Scale, text
from stepcredit.reports.plots.figure import Drawing, Mark, figure, mark_of
from stepcredit.reports.plots.svg import element, join

_WIDTH = 360.0  # in units in which text is 12 high
_STRIP = 92.0
_BARS = 66.0
_TOP = 4.0
_BOTTOM = 46.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How often one group falls into each bin.

    Attributes:
        counts: One per bin, at least 0.
    """

    name: str
    counts: Sequence[float]
    mark: Mark | None = None


def histogram(
    edges: Sequence[float], groups: Sequence[Counts], *, title: str, x: Axis, note: str = "", unit: str = ""
) -> Markup:
    """One strip a group; bars show the share of the group in each bin, so that sizes can differ.

    Args:
        edges: Of the bins, rising; one more than there are bins.
        unit: What is counted, plural.

    Raises:
        ValueError: A group has another number of bins.
    """
    if any(len(group.counts) != len(edges) - 1 for group in groups):
        raise ValueError(f"{len(edges)} edges make {len(edges) - 1} bins; a group has another number")
    height = _TOP + _STRIP * len(groups) + _BOTTOM
    floor = height - _BOTTOM
    scale = x.scale(edges, 8, _WIDTH - 8)
    parts = []
    for tick in scale.ticks:
        at = scale(tick)
        parts += [
            element("line", class_="grid", x1=at, x2=at, y1=_TOP, y2=floor),
            element("line", class_="axis", x1=at, x2=at, y1=floor, y2=floor + 4),
            text(x.write_tick(tick), at, floor + 18, anchor="middle"),
        ]
    table = []
    for index, group in enumerate(groups):
        base = _TOP + _STRIP * (index + 1)
        total = f"{sum(group.counts):,g} {unit}".strip()
        parts += [
            element("line", class_="axis", x1=8, x2=_WIDTH - 8, y1=base, y2=base),
            text(group.name, 8, base - _STRIP + 16, class_="name"),
            text(total, _WIDTH - 8, base - _STRIP + 16, anchor="end", class_="value"),
        ]
        for row, bar in _bars(edges, group, mark_of(index, group.mark), base, x, scale):
            table.append(row)
            parts.append(bar)
    parts.append(text(x.label, _WIDTH - 8, height - 6, anchor="end", class_="label"))
    return figure(
        Drawing(
            title=title,
            picture=join(parts),
            width=_WIDTH,
            height=height,
            header=("Group", x.label, "Count", "Share of group"),
            rows=table,
            note=note,
        )
    )


def _bars(
    edges: Sequence[float], group: Counts, mark: Mark, base: float, x: Axis, scale: Scale
) -> Iterator[tuple[tuple[str, ...], Markup]]:
    """The bars of one strip, each with its row of the table."""
    total = sum(group.counts)
    largest = max(group.counts, default=0) or 1
    for left, right, count in zip(edges, edges[1:], group.counts, strict=False):
        if count <= 0:
            continue
        name = f"{x.write(left)} to {x.write(right)}"
        share = f"{100 * count / total:.1f}%"
        bar = element(
            "rect",
            element("title", f"{group.name}, {name}: {count:,g} ({share})"),
            class_=f"bar {mark.colour}",
            x=scale(left) + 0.5,
            width=max(0.5, scale(right) - scale(left) - 1),
            y=base - _BARS * count / largest,
            height=_BARS * count / largest,
        )
        yield (group.name, name, f"{count:,g}", share), bar
