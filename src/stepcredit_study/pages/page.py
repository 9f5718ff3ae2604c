"""The page of all findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from stepcredit.reports.page import ABSENT, plain, render_page
from stepcredit_study.pages.finding import Cell, Estimate, Finding, Table, Verdict
from stepcredit_study.pages.plots import draw
from stepcredit_study.pages.text import seeds_of

_CLASSES: Mapping[Verdict, str] = {
    "holds": "holds",
    "does not hold": "fails",
    "undecided": "undecided",
    "not measured": "unmeasured",
}
_PLACES = {
    "lab": "in a synthetic world",
    "lab2": "in a second synthetic world",
    "paper": "at the paper's scale",
}


def render_findings(findings: Sequence[Finding]) -> str:
    """One self-contained HTML page, the verdicts first."""
    counts = Counter(check.verdict for finding in findings for check in finding.checks)
    seeds = sorted({seeds_of(finding) for finding in findings} - {0})
    places = {_PLACES.get(str(_scale(finding).get("name")), "here") for finding in findings}
    where = places.pop() if len(places) == 1 else "here"
    return render_page(
        "findings.html",
        package="stepcredit_study.pages",
        title="The paper's findings, repeated",
        kind="findings",
        sections=[("verdicts", "Verdicts"), *((finding.name, finding.name) for finding in findings)],
        # How many claims hold says nothing without the world that they hold in.
        headline=f"The paper's findings, repeated {where}",
        seeds=seeds,
        tally=[(counts[verdict], verdict, _CLASSES[verdict]) for verdict in _CLASSES if counts[verdict]],
        findings=[_shown(finding) for finding in findings],
        verdict_class=_CLASSES,
    )


def _scale(finding: Finding) -> Mapping[str, Any]:
    scale = (finding.settings or {}).get("scale")
    return scale if isinstance(scale, Mapping) else {}


def _shown(finding: Finding) -> dict[str, Any]:
    settings = finding.settings or {}
    sizes = _scale(finding).get("sizes")
    facts = [("seeds", str(seeds_of(finding)))]
    if isinstance(sizes, Mapping):
        facts += [(name.replace("_", " "), f"{size:,}") for name, size in sizes.items()]
    versions = settings.get("versions")
    if isinstance(versions, Mapping):
        facts += [(name, str(version)) for name, version in versions.items()]
    if settings.get("git_commit"):
        facts.append(("commit", str(settings["git_commit"])[:12]))
    return {
        "finding": finding,
        "plots": [draw(plot) for plot in finding.plots],
        "tables": [
            (table, [(name, [_cell(cell, table) for cell in cells]) for name, cells in table.rows])
            for table in finding.tables
        ],
        "command": settings.get("command"),
        "facts": facts,
    }


def _cell(cell: Cell, table: Table) -> dict[str, str]:
    """What stands in a cell, below it in small print, and its class."""
    if not isinstance(cell, Estimate):
        return {"value": cell or ABSENT, "interval": "", "kind": "published"}
    factor = 100.0 if table.percent else 1.0
    interval = ""
    if cell.low is not None and cell.high is not None:
        low, high = (plain(factor * end, table.digits) for end in (cell.low, cell.high))
        interval = f"{low} to {high}"
    return {"value": plain(factor * cell.mean, table.digits), "interval": interval, "kind": ""}
