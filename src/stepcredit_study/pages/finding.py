"""What an experiment found: its tables, plots and verdicts, as plain records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["holds", "does not hold", "undecided", "not measured"]
"""``undecided``: the interval allows both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        low: Lower end of the 95% interval; ``None`` with fewer than two seeds.
        values: One per seed, in the order of the seeds.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    values: tuple[float, ...]


def format_estimate(estimate: Estimate, *, percent: bool = True, digits: int = 1, sign: bool = False) -> str:
    """An estimate in words: ``41.2 [38.0, 44.4]``."""
    factor, mark = 100.0 if percent else 1.0, "+" if sign else ""
    text = f"{factor * estimate.mean:{mark}.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{factor * estimate.low:{mark}.{digits}f}, {factor * estimate.high:{mark}.{digits}f}]"


def format_estimates(
    estimates: Mapping[str, Estimate], *, percent: bool = True, digits: int = 1, sign: bool = True
) -> str:
    """Named estimates in words, usually differences: ``mid +1.2 [0.3, 2.1], weak -0.4 [-1.1, 0.3]``."""
    return ", ".join(
        f"{name} {format_estimate(estimate, percent=percent, digits=digits, sign=sign)}"
        for name, estimate in estimates.items()
    )


Cell = Estimate | str | None
"""A measured number, a text such as a published one, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Numbers beside the paper's.

    Attributes:
        caption: Units, and what a reader must know.
        percent: Estimates are shares, shown in per cent.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    caption: str = ""
    percent: bool = True
    digits: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One curve, or one row of a plot of intervals.

    Attributes:
        x: Positions of a curve; empty in a plot of intervals.
        y: One estimate per position; one alone in a plot of intervals.
    """

    name: str
    y: tuple[Estimate, ...]
    x: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A picture of some estimates.

    Attributes:
        kind: Curves over ``x``, one interval a row, or points with both coordinates measured.
        y_label: Vertical axis, with its unit; of no use in a plot of intervals.
        percent: Whether estimates are shares.
        reference: A value to compare with, marked by a line (plots of intervals).
    """

    name: str
    title: str
    kind: Literal["curves", "intervals", "points"]
    x_label: str
    series: tuple[Series, ...]
    y_label: str = ""
    x_log2: bool = False
    percent: bool = True
    reference: float | None = None


def curves_plot(
    name: str,
    title: str,
    labels: tuple[str, str],
    curves: Mapping[str, Mapping[float, Estimate]],
    *,
    log2: bool = True,
    percent: bool = True,
) -> Plot:
    """Curves over an axis that is logarithmic, unless ``log2`` is false.

    Args:
        curves: Name in the legend to each place and its height.
        percent: Whether heights are shares.
    """
    return Plot(
        name=name,
        title=title,
        kind="curves",
        x_label=labels[0],
        y_label=labels[1],
        x_log2=log2,
        percent=percent,
        series=tuple(
            Series(name=label, x=tuple(map(float, curve)), y=tuple(curve.values()))
            for label, curve in curves.items()
        ),
    )


def intervals_plot(
    name: str,
    title: str,
    x_label: str,
    estimates: Mapping[str, Estimate],
    *,
    reference: float | None = 0.0,
    percent: bool = True,
) -> Plot:
    """One interval per row; by default of differences, beside nothing."""
    return Plot(
        name=name,
        title=title,
        kind="intervals",
        x_label=x_label,
        series=tuple(Series(name=label, y=(estimate,)) for label, estimate in estimates.items()),
        percent=percent,
        reference=reference,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One claim, and what became of it here.

    Attributes:
        paper: The published numbers; a text that begins with "not" where nothing was published.
        here: The numbers of this run.
        why: What explains it, where something does.
    """

    claim: str
    paper: str
    here: str
    verdict: Verdict
    why: str = ""

    @property
    def is_published(self) -> bool:
        """Whether somebody claimed it; the other checks are questions of our own."""
        return not self.paper.startswith("not ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An experiment's outcome."""

    name: str
    title: str
    purpose: str
    differs: str
    tables: tuple[Table, ...]
    checks: tuple[Check, ...]
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] | None = None


def numbered(findings: Sequence[Finding]) -> Iterator[tuple[str, Finding, Check]]:
    """Every check and its number on a page: ``3.2`` is the second of the third finding."""
    for number, finding in enumerate(findings, 1):
        for place, check in enumerate(finding.checks, 1):
            yield f"{number}.{place}", finding, check
