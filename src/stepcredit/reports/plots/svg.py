"""Writing SVG elements with everything escaped."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """An element; text children are escaped, markup is kept.

    Args:
        attributes: ``stroke_width`` becomes ``stroke-width``, ``class_`` becomes ``class``; ``None`` is
            left out; numbers keep two decimals.
    """
    pieces = [f"<{name}"]
    for key, value in attributes.items():
        if value is None:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        pieces.append(f' {attribute}="{escape(value if isinstance(value, str) else number(value))}"')
    inside = join(children)
    pieces.append(f">{inside}</{name}>" if inside else "/>")
    return Markup("".join(pieces))


def join(parts: Iterable[str]) -> Markup:
    """Parts one after the other; text is escaped, markup is kept."""
    return Markup("").join(parts)


def number(value: float) -> str:
    """A coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


def path_of(points: Iterable[tuple[float, float]], *, closed: bool = False) -> str:
    """A ``d`` attribute through the points."""
    steps = " L".join(f"{number(x)} {number(y)}" for x, y in points)
    return f"M{steps}{'Z' if closed else ''}"
