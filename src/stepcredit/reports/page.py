"""The shell of every report: one offline HTML file for light and dark, narrow and wide, and for paper."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from stepcredit.wording import quantity

_PACKAGE = "stepcredit.reports"
ABSENT = "–"
"""Shown for a number that the result files do not have."""


def render_page(template: str, /, *, package: str = _PACKAGE, **context: Any) -> str:
    """Render a template that extends ``base.html``.

    Args:
        template: File name in ``templates/``.
        package: Whose ``templates/`` it lies in; those of this package can be extended and included.
        context: What the template shows. ``base.html`` itself uses ``title`` (the document's title,
            required), ``kind`` (what sort of report, beside the name at the top), and ``sections``
            (pairs of anchor and name, for the navigation).

    Returns:
        A complete HTML document without any reference to another file or host.
    """
    return _environment(package).get_template(template).render(**context)


def percent(share: float | None, decimals: int = 1) -> str:
    """A share in [0, 1] as a percentage, or :data:`ABSENT`."""
    if share is None or not math.isfinite(share):
        return ABSENT
    return f"{100 * share:.{decimals}f}%"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points with its sign, or :data:`ABSENT`."""
    if difference is None or not math.isfinite(difference):
        return ABSENT
    return f"{100 * difference:+.1f}".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """An interval of shares in percent, without the sign; empty if an end is missing."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{100 * low:.1f} to {100 * high:.1f}".replace("-", "−")


def span(low: float | None, high: float | None, decimals: int = 3) -> str:
    """An interval of numbers; empty where there is none."""
    return "" if low is None else f"{plain(low, decimals)} to {plain(high, decimals)}"


def signed(value: float | None, decimals: int = 2) -> str:
    """A reward with its sign and a true minus, or :data:`ABSENT`."""
    if value is None or math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "+∞" if value > 0 else "−∞"
    written = f"{value:+.{decimals}f}".replace("-", "−")
    return written.lstrip("+−") if float(written.replace("−", "-")) == 0 else written


def plain(value: float | None, decimals: int = 3) -> str:
    """A number with a fixed count of decimals and a true minus, or :data:`ABSENT`."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:,.{decimals}f}".replace("-", "−")


def count(value: float | None) -> str:
    """A whole number with thousands separated, or :data:`ABSENT`."""
    return ABSENT if value is None or not math.isfinite(value) else f"{round(value):,}"


def duration(seconds: float | None) -> str:
    """Seconds as readers say them, e.g. ``48 s`` or ``2 min 05 s``, or :data:`ABSENT`."""
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def sentence(note: str) -> str:
    """A note as a sentence; a name that it begins with, before a colon, stays as it is."""
    begins_with_name = ":" in note.split(" ")[0] or "_" in note.split(" ")[0]
    return (note if begins_with_name else note[:1].upper() + note[1:]) + "."


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, _PACKAGE))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent,
        points=points,
        interval=interval,
        signed=signed,
        plain=plain,
        count=count,
        quantity=quantity,
        sentence=sentence,
        duration=duration,
    )
    environment.globals["absent"] = ABSENT
    return environment
