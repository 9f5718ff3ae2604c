"""A plot as an SVG file of its own: title, legend and colours inside, for light and dark viewers."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from markupsafe import Markup

from stepcredit.reports.plots.axes import CHARACTER_WIDTH, text
from stepcredit.reports.plots.figure import Drawing, Mark
from stepcredit.reports.plots.svg import element, join

_MARGIN = 18.0
_ENLARGED = 1.25
_TITLE_CHARACTER = 8.0
_TITLE_LINE = 20.0
_LINE = 16.0
_SWATCH = 32.0
_ROOT = """
.paper { fill: var(--paper); stroke: var(--rule); }
.plot text.title { font: 600 15px var(--sans); fill: var(--ink); }
"""


def standalone(drawing: Drawing) -> Markup:
    """A whole SVG document; what a plot function takes as ``render``.

    The background is part of the picture, so that it can be read wherever it is shown; it follows the
    viewer's preference for light or dark. The numbers stand in its description.
    """
    title, note, width = drawing.title, drawing.note, drawing.width
    parts, top = [], _MARGIN
    for line in textwrap.wrap(title, int(width / _TITLE_CHARACTER)):
        parts.append(text(line, _MARGIN, top + 14, class_="title"))
        top += _TITLE_LINE
    for line in textwrap.wrap(note, int(width / CHARACTER_WIDTH)):
        parts.append(text(line, _MARGIN, top + 12))
        top += _LINE
    entries, top = _legend(drawing.key, width, top + 6)
    parts.append(entries)
    top += 8
    parts.append(element("g", drawing.picture, transform=f"translate({_MARGIN:g} {top:g})"))
    whole_width, whole_height = width + 2 * _MARGIN, top + drawing.height + _MARGIN / 2
    numbers = "; ".join(
        ", ".join(f"{name} {value}" for name, value in zip(drawing.header, row, strict=True))
        for row in drawing.rows
    )
    return element(
        "svg",
        element("title", title),
        element("desc", f"{note} {numbers}".strip()),
        element("style", _style()),
        element("rect", class_="paper", x=0.5, y=0.5, width=whole_width - 1, height=whole_height - 1, rx=8),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        class_="plot",
        viewBox=f"0 0 {whole_width:g} {whole_height:g}",
        width=_ENLARGED * whole_width,
        height=_ENLARGED * whole_height,
        role="img",
    ) + Markup("\n")


def _legend(key: Sequence[tuple[str, Mark]], width: float, top: float) -> tuple[Markup, float]:
    """Entries in as many lines as they need, and where they end."""
    parts, left = [], 0.0
    for name, mark in key:
        length = _SWATCH + CHARACTER_WIDTH * 1.1 * len(name) + 18
        if left and left + length > width:
            left, top = 0.0, top + _LINE + 2
        x, y = _MARGIN + left, top + 8
        parts += [
            element("line", class_=mark.line_class, x1=x, x2=x + 24, y1=y, y2=y),
            mark.draw(x + 12, y, 3.6),
            text(name, x + _SWATCH, y + 4, class_="name"),
        ]
        left += length
    return join(parts), top + (_LINE if key else 0.0)


@cache
def _style() -> Markup:
    """The page's rules for plots, with its colours written out: not every viewer knows variables."""
    folder = files("stepcredit.reports") / "templates"
    variables = (folder / "style.css").read_text(encoding="utf-8")
    rules = _ROOT + (folder / "plot.css").read_text(encoding="utf-8")
    fonts = dict(re.findall(r"--(sans|serif|mono): ([^;]+);", variables))
    colours = re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\);", variables)

    def written(values: dict[str, str]) -> str:
        return re.sub(r"var\(--([\w-]+)\)", lambda match: values[match[1]], rules)

    light = written(fonts | {name: colour for name, colour, _ in colours})
    dark = written(fonts | {name: colour for name, _, colour in colours})
    return Markup(f"{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n")
