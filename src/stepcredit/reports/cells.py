"""What the pages of evaluations are made of: numbers in tables, and failures to look at."""

from __future__ import annotations

from dataclasses import dataclass

from stepcredit.reports.heatmap import HeatMap


@dataclass(frozen=True, slots=True)
class Cell:
    """A number of the headline table, as text."""

    value: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Gallery:
    """A scorer's failures, to look at."""

    scorer: str
    anchor: str
    map: HeatMap
