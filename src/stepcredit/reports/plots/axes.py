"""Scales, ticks and the frame that every plot is drawn in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stepcredit.reports.plots.svg import element, join

CHARACTER_WIDTH = 6.0
"""Width of an average character of the plots' text, in SVG units; for layout only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """How one direction of a plot is shown.

    Attributes:
        label: What is shown, with its unit.
        percent: Shares in [0, 1] are written as percentages.
        log2: Logarithmic, to base 2; values must be positive.
        low: The axis reaches down to this value at least; by default to the data.
        high: The axis reaches up to this value at least; by default to the data.
        ticks: Where to write numbers; by default about five round ones.
        decimals: Digits after the point in the table of numbers and in tooltips.
    """

    label: str
    percent: bool = False
    log2: bool = False
    low: float | None = None
    high: float | None = None
    ticks: tuple[float, ...] | None = None
    decimals: int = 3

    def write(self, value: float) -> str:
        """A value as readers see it, rounded to ``decimals`` (percentages: two fewer)."""
        if self.percent:
            return f"{100 * value:.{max(0, self.decimals - 2)}f}%".replace("-", "−")
        if value == int(value) and abs(value) < 1e15:
            return f"{int(value):,}".replace("-", "−")
        if 0 < abs(value) < 10**-self.decimals:
            return f"{value:.1e}".replace("-", "−")
        return f"{value:,.{self.decimals}f}".replace("-", "−")

    def scale(self, values: Iterable[float], start: float, end: float) -> Scale:
        """A scale over the finite values (and ``low``, ``high``) from ``start`` to ``end``."""
        known = [value for value in (*values, self.low, self.high) if value is not None]
        known = [value for value in known if math.isfinite(value) and (value > 0 or not self.log2)]
        low, high = (min(known), max(known)) if known else (1.0 if self.log2 else 0.0, 1.0)
        if low == high:
            low, high = (low / 2, high * 2) if self.log2 else (low - 0.5, high + 0.5)
        ticks = self.ticks
        if ticks is None:
            ticks = _powers_of_two(low, high) if self.log2 else round_ticks(low, high)
            if not self.log2:
                step = ticks[1] - ticks[0]
                low = self.low if self.low == low else math.floor(low / step + 1e-9) * step
                high = self.high if self.high == high else math.ceil(high / step - 1e-9) * step
                ticks = round_ticks(low, high, step)
        slack = 1e-9 * (high - low)
        inside = tuple(tick for tick in ticks if low - slack <= tick <= high + slack)
        return Scale(low, high, start, end, self.log2, inside)

    def write_tick(self, tick: float) -> str:
        """A tick's number, as short as it can be."""
        shown = 100 * tick if self.percent else tick
        if abs(shown) >= 10_000:
            for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
                if abs(shown) >= size:
                    return f"{shown / size:.4g}{suffix}".replace("-", "−") if shown < 1e15 else f"{shown:.3g}"
        return f"{shown:.4g}{'%' if self.percent else ''}".replace("-", "−")


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps data to SVG coordinates.

    Attributes:
        low: Data value at ``start``.
        high: Data value at ``end``.
        start: Coordinate of ``low``.
        end: Coordinate of ``high``.
    """

    low: float
    high: float
    start: float
    end: float
    log2: bool
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """The coordinate of ``value``."""
        low, high = self.low, self.high
        if self.log2:
            value, low, high = math.log2(value), math.log2(low), math.log2(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def round_ticks(low: float, high: float, step: float | None = None) -> tuple[float, ...]:
    """Multiples of a round step (1, 2, 2.5 or 5 times a power of ten) from ``low`` to ``high``."""
    if step is None:
        rough = (high - low) / 4.5
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = magnitude * min((1, 2, 2.5, 5, 10), key=lambda factor: abs(factor * magnitude - rough))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    ticks = tuple(index * step for index in range(first, last + 1))
    return ticks if len(ticks) > 1 else (low, high)


def _powers_of_two(low: float, high: float) -> tuple[float, ...]:
    powers = range(math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9) + 1)
    every = max(1, math.ceil(len(powers) / 8))
    return tuple(2.0**power for power in powers[::every])


@dataclass(frozen=True, slots=True)
class Frame:
    """The area inside the axes, in SVG units; the picture is ``width`` by ``height``."""

    width: float = 360
    height: float = 265
    left: float = 44
    right: float = 20
    top: float = 30
    bottom: float = 44

    def x_scale(self, axis: Axis, values: Iterable[float], inset: float = 0) -> Scale:
        """The horizontal scale; an inset keeps marks off the edges."""
        return axis.scale(values, self.left + inset, self.width - self.right - inset)

    def y_scale(self, axis: Axis, values: Iterable[float]) -> Scale:
        """The vertical scale; larger is higher up."""
        return axis.scale(values, self.height - self.bottom, self.top)

    def draw(self, x_axis: Axis, y_axis: Axis, x: Scale, y: Scale) -> Markup:
        """Grid lines, tick numbers and labels; the vertical axis' label stands on top, level."""
        right, floor = self.width - self.right, self.height - self.bottom
        parts: list[Markup] = []
        for tick in y.ticks:
            parts += [
                element("line", class_="grid", x1=self.left, x2=right, y1=y(tick), y2=y(tick)),
                text(y_axis.write_tick(tick), self.left - 8, y(tick) + 4, anchor="end"),
            ]
        parts.append(element("line", class_="axis", x1=self.left, x2=right, y1=floor, y2=floor))
        for tick in x.ticks:
            parts += [
                element("line", class_="axis", x1=x(tick), x2=x(tick), y1=floor, y2=floor + 4),
                text(x_axis.write_tick(tick), x(tick), floor + 18, anchor="middle"),
            ]
        parts += [
            text(y_axis.label, 0, 12, class_="label"),
            text(x_axis.label, right, self.height - 6, anchor="end", class_="label"),
        ]
        return join(parts)


def text(content: str, x: float, y: float, *, anchor: str = "start", class_: str = "tick") -> Markup:
    """A piece of text whose baseline starts, is centred or ends at (x, y)."""
    return element(
        "text", content, class_=class_, x=x, y=y, text_anchor=None if anchor == "start" else anchor
    )


def finite(*values: float | None) -> bool:
    """Whether every value is there and finite."""
    return all(value is not None and math.isfinite(value) for value in values)


def known(values: Sequence[float | None]) -> list[float]:
    """The values that are there and finite."""
    return [value for value in values if value is not None and math.isfinite(value)]
