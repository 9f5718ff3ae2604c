"""Ways to choose one of n responses: the demo's headline table and its best-of-n curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stepcredit.evaluation.results import Comparison, Result
from stepcredit.reports.cells import Cell
from stepcredit.reports.page import ABSENT, count, interval, percent
from stepcredit.reports.plots import Axis, Line, Mark, legend, line_plot
from stepcredit.reports.summary import PolicyFindings
from stepcredit.stats import Interval

PRM = "implicit-prm"
REFERENCE = "reference-log-probability"
_TABLE_NS = (1, 4, 16, 64)
_POLICY_ROLES = {
    "mid": "The reward model was trained on responses of this policy.",
    "weak": "Not seen in training.",
    "strong": "Not seen in training.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """A way to choose one of n responses, and how it is shown.

    Attributes:
        keys: Which rows of the results it is: (method, scorer, aggregate); the first that is there counts.
        mark: In the curves; ``None`` is in the table only.
        kind: CSS class of its row: ``subject`` for the method on trial, ``bound`` for what no chooser beats.
        ns: The only n that it is shown for; by default all.
    """

    name: str
    detail: str
    keys: tuple[tuple[str, str | None, str | None], ...]
    mark: Mark | None = None
    kind: str = ""
    ns: tuple[int, ...] | None = None

    def cells(self, results: Sequence[Result]) -> dict[int, Result]:
        """Its results by n."""
        for key in self.keys:
            cells = {row.n: row for row in results if (row.method, row.scorer, row.aggregate) == key}
            if cells:
                return {n: row for n, row in cells.items() if self.ns is None or n in self.ns}
        return {}


SINGLE = Chooser(
    name="One response", detail="pass@1: nothing to choose from", keys=(("pass", None, None),), ns=(1,)
)
MAJORITY = Chooser(
    name="Majority vote",
    detail="the most frequent answer",
    keys=(("majority", None, None),),
    mark=Mark("orange", "triangle"),
)
LOG_PROBABILITY = Chooser(
    name="Reference log-probability",
    detail="the likeliest response under the untrained model",
    keys=tuple(("best-of-n", REFERENCE, aggregate) for aggregate in ("reward", "sum")),
    mark=Mark("purple", "diamond"),
)
LOWEST_STEP = Chooser(
    name="Implicit PRM, lowest step",
    detail="the response whose worst step is best",
    keys=(("best-of-n", PRM, "min"),),
    mark=Mark("blue", "circle", strong=True),
    kind="subject",
)
SUM_OF_STEPS = Chooser(
    name="Implicit PRM, sum of steps",
    detail="the response with the highest reward",
    keys=tuple(("best-of-n", PRM, aggregate) for aggregate in ("sum", "reward")),
    mark=Mark("sky", "down"),
    kind="subject",
)
ORACLE = Chooser(
    name="Oracle",
    detail="pass@n: any of the n is right; no method can do better",
    keys=(("pass", None, None),),
    mark=Mark("grey", "none", dashed=True),
    kind="bound",
)
CHOOSERS = (SINGLE, MAJORITY, LOG_PROBABILITY, LOWEST_STEP, SUM_OF_STEPS, ORACLE)
_DRAWING_ORDER = (ORACLE, LOG_PROBABILITY, MAJORITY, SUM_OF_STEPS, LOWEST_STEP)


@dataclass(frozen=True, slots=True)
class Row:
    """A chooser's line of the headline table."""

    chooser: Chooser
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class PolicyTable:
    """The headline table of one policy, and every other result under it."""

    name: str
    role: str
    policy: PolicyFindings
    ns: tuple[int, ...]
    rows: tuple[Row, ...]
    results: tuple[tuple[str, ...], ...]


def policy_table(name: str, policy: PolicyFindings) -> PolicyTable:
    """The headline table of a policy; the best chooser at each n stands out."""
    known = sorted({row.n for row in policy.results})
    ns = tuple(n for n in _TABLE_NS if n in known) or tuple(known)
    by_chooser = [(chooser, chooser.cells(policy.results)) for chooser in CHOOSERS]
    rivals = [cells for chooser, cells in by_chooser if chooser.kind != "bound"]
    best = {n: max((cells[n].accuracy for cells in rivals if n in cells), default=None) for n in ns}
    rows = []
    for chooser, cells in by_chooser:
        texts = []
        for n in ns:
            row = cells.get(n)
            if row is None:
                texts.append(Cell("" if chooser.ns else ABSENT))
                continue
            leads = n > 1 and chooser.kind != "bound" and row.accuracy == best[n]
            texts.append(Cell(percent(row.accuracy), interval(row.low, row.high), leads))
        rows.append(Row(chooser, tuple(texts)))
    results = tuple(
        (
            row.method,
            row.scorer or ABSENT,
            row.aggregate or ABSENT,
            count(row.n),
            percent(row.accuracy),
            interval(row.low, row.high) or ABSENT,
        )
        for row in policy.results
    )
    return PolicyTable(name, _POLICY_ROLES.get(name, ""), policy, ns, tuple(rows), results)


def accuracy_curves(policies: Mapping[str, PolicyFindings]) -> list[Markup]:
    """Accuracy against n, one plot per policy, on the same scale."""
    plots = []
    for name, policy in policies.items():
        lines = []
        for chooser in _DRAWING_ORDER:
            cells = [row for _, row in sorted(chooser.cells(policy.results).items())]
            if cells:
                lines.append(
                    Line(
                        name=chooser.name,
                        x=[row.n for row in cells],
                        y=[row.accuracy for row in cells],
                        low=[row.low for row in cells],
                        high=[row.high for row in cells],
                        mark=chooser.mark,
                    )
                )
        plots.append(
            line_plot(
                lines,
                title=f"Policy {name}",
                note=_POLICY_ROLES.get(name, ""),
                x=Axis(label="responses to choose from (n)", log2=True),
                y=Axis(label="problems answered right", percent=True, low=0.0, high=1.0),
                with_legend=False,
            )
        )
    return plots


def difference_of(
    comparisons: Iterable[Comparison], n: int, first: Chooser, second: Chooser
) -> Interval | None:
    """The paired difference of two choosers' accuracies, whichever way round it was stored."""
    ours, others = ({"/".join(filter(None, key)) for key in chooser.keys} for chooser in (first, second))
    for row in comparisons:
        if row.n == n and row.first in ours and row.second in others:
            return Interval(row.difference, row.low, row.high)
        if row.n == n and row.first in others and row.second in ours:
            return Interval(-row.difference, -row.high, -row.low)
    return None


def choosers_legend() -> Markup:
    """The legend that the curves of all policies share."""
    return legend([(one.name, one.mark) for one in reversed(_DRAWING_ORDER) if one.mark is not None])
