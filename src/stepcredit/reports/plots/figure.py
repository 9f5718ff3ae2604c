"""What plots share: marks, the legend, and the ``<figure>`` with the picture and its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from stepcredit.reports.plots.axes import Axis, finite
from stepcredit.reports.plots.svg import element, path_of

Colour = Literal["blue", "orange", "green", "purple", "sky", "brown", "grey"]
Shape = Literal["circle", "square", "triangle", "diamond", "down", "none"]


@dataclass(frozen=True, slots=True)
class Mark:
    """How a series looks; shape and dash tell series apart where colour cannot.

    Attributes:
        colour: Name of a colour of the page's palette, which suits both themes.
        strong: Whether lines are thick: the series that the plot is about.
    """

    colour: Colour = "blue"
    shape: Shape = "circle"
    dashed: bool = False
    strong: bool = False

    def draw(self, x: float, y: float, size: float = 4.0, title: str | None = None) -> Markup:
        """The shape centred at (x, y), with a tooltip."""
        inside = [element("title", title)] if title else []
        class_ = f"mark {self.colour}"
        if self.shape == "circle":
            return element("circle", *inside, class_=class_, cx=x, cy=y, r=size)
        if self.shape == "none":
            return element("circle", *inside, class_=f"{class_} unseen", cx=x, cy=y, r=size)
        corners = {"square": (4, 45.0), "diamond": (4, 0.0), "triangle": (3, -90.0), "down": (3, 90.0)}
        count, turn = corners[self.shape]
        reach = size * (1.25 if count == 4 else 1.4)
        angles = [math.radians(turn + 360 * corner / count) for corner in range(count)]
        points = [(x + reach * math.cos(angle), y + reach * math.sin(angle)) for angle in angles]
        return element("path", *inside, class_=class_, d=path_of(points, closed=True))

    @property
    def line_class(self) -> str:
        """CSS classes of a line in this look."""
        return f"line {self.colour}{' dashed' if self.dashed else ''}{' strong' if self.strong else ''}"


DEFAULT_MARKS = (
    Mark("blue", "circle"),
    Mark("orange", "triangle"),
    Mark("green", "square"),
    Mark("purple", "diamond"),
    Mark("sky", "down"),
    Mark("brown", "circle", dashed=True),
    Mark("grey", "square", dashed=True),
)
"""Looks of the first, second, ... series where none is named."""


def mark_of(index: int, mark: Mark | None) -> Mark:
    """The given mark, or the default of the series at ``index``."""
    return mark if mark is not None else DEFAULT_MARKS[index % len(DEFAULT_MARKS)]


def legend(entries: Sequence[tuple[str, Mark]]) -> Markup:
    """A list of names with their marks, to stand above one plot or several."""
    items = []
    for name, mark in entries:
        swatch = element(
            "svg",
            element("line", class_=mark.line_class, x1=1, x2=25, y1=7, y2=7),
            mark.draw(13, 7, 3.6),
            viewBox="0 0 26 14",
            width=26,
            height=14,
            aria_hidden="true",
        )
        items.append(element("li", swatch, element("span", name)))
    return element("ul", *items, class_="legend", aria_label="Legend")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A drawn plot.

    Attributes:
        rows: Cells of its numbers; the first of each row names it.
        note: One or two sentences under the title, e.g. what the bands are.
        key: Names and marks of the legend.
    """

    title: str
    picture: Markup
    width: float
    height: float
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    key: Sequence[tuple[str, Mark]] = ()


Renderer = Callable[[Drawing], Markup]
"""What becomes of a drawn plot: :func:`figure` lays it into a page."""


def figure(drawing: Drawing) -> Markup:
    """A titled picture and, folded beneath it, its numbers."""
    title, note, width = drawing.title, drawing.note, drawing.width
    caption = element("span", title, class_="plot-title")
    if note:
        caption += element("span", note, class_="plot-note")
    if not drawing.rows:
        empty = element("p", "No numbers to draw.", class_="absent")
        return element("figure", element("figcaption", caption), empty, class_="plot")
    svg = element(
        "svg",
        drawing.picture,
        viewBox=f"0 0 {width:g} {drawing.height:g}",
        role="img",
        aria_label=f"{title}. {note} The numbers are in the table below.".replace(". .", "."),
        style=f"max-width:{1.3 * width:g}px",
    )
    head = element("figcaption", caption, legend(drawing.key) if drawing.key else "")
    numbers = numbers_table(drawing.header, drawing.rows, title)
    return element("figure", head, svg, numbers, class_="plot")


def numbers_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Markup:
    """The folded table under a plot."""
    head = element("tr", *(element("th", name, scope="col") for name in header))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:]))
        for row in rows
    ]
    table = element("table", element("thead", head), element("tbody", *body))
    scroll = element(
        "div", table, class_="scroll", tabindex="0", role="region", aria_label=f"Numbers: {title}"
    )
    return element("details", element("summary", "Numbers"), scroll, class_="numbers")


def interval_text(axis: Axis, low: float | None, high: float | None) -> str:
    """An interval as the axis writes it, or a dash where an end is missing."""
    if low is None or high is None or not finite(low, high):
        return "–"
    return f"{axis.write(low)} to {axis.write(high)}"
