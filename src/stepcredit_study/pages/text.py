"""A finding in words and figures: for the terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stepcredit_study.pages.finding import Cell, Check, Estimate, Finding, Table, format_estimate

_WIDTH = 100
_ABSENT = "–"


def seeds_of(finding: Finding) -> int:
    """Over how many seeds its numbers are means."""
    estimates = [
        cell
        for table in finding.tables
        for _, cells in table.rows
        for cell in cells
        if isinstance(cell, Estimate)
    ]
    return max((len(estimate.values) for estimate in estimates), default=0)


def finding_text(finding: Finding) -> str:
    """For a terminal: tables with half the interval behind a ``±``, then each claim with its verdict."""
    lines = [f"{finding.name}: {finding.title}", *_wrapped(finding.purpose, "")]
    for table in finding.tables:
        lines += ["", table.title, *_aligned(table), *_wrapped(table.caption, "")]
    lines.append("")
    for check in finding.checks:
        lines += _wrapped(f"[{check.verdict}] {check.claim}", "")
        for name in ("paper", "here", "why"):
            lines += _wrapped(getattr(check, name), f"    {name + ':':<7}")
    seeds = seeds_of(finding)
    if seeds > 1:
        lines += ["", f"Means over {seeds} seeds; ± and brackets: 95% intervals over seeds."]
    for note in finding.notes:
        lines += _wrapped(note, "")
    return "\n".join(lines)


def _wrapped(text: str, start: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=start, subsequent_indent=" " * len(start))


def _aligned(table: Table) -> Iterator[str]:
    rows = [["", *table.columns]]
    rows += [[name, *(_short(cell, table) for cell in cells)] for name, cells in table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([f"{row[0]:<{widths[0]}}", *cells]).rstrip()


def _short(cell: Cell, table: Table) -> str:
    if not isinstance(cell, Estimate):
        return cell or _ABSENT
    factor = 100.0 if table.percent else 1.0
    text = f"{factor * cell.mean:.{table.digits}f}"
    if cell.low is None or cell.high is None:
        return text
    return f"{text} ±{factor * (cell.high - cell.low) / 2:.{table.digits}f}"


def finding_markdown(finding: Finding) -> str:
    """The page of a published finding; pictures are named as they lie beside it."""
    settings = finding.settings or {}
    parts = [f"# {finding.title}", finding.purpose, f"**What differs from the paper.** {finding.differs}"]
    parts += ["## Claims", claims_table(finding.checks), whys(finding.checks)]
    if finding.plots:
        parts += ["## Plots", *(f"![{plot.title}]({plot.name}.svg)" for plot in finding.plots)]
    seeds = seeds_of(finding)
    if finding.tables:
        parts.append("## Numbers")
        if seeds > 1:
            parts.append(f"A cell is the mean over {seeds} seeds with its 95% interval over seeds.")
    for table in finding.tables:
        parts += [f"### {table.title}", table.caption, _markdown_table(table)]
    if finding.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in finding.notes)]
    parts += ["## How this was made", *_made(settings, seeds)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _made(settings: Mapping[str, Any], seeds: int) -> Iterator[str]:
    if "command" in settings:
        yield f"    {settings['command']}"
    facts = [f"{seeds} seed{'s' if seeds != 1 else ''} (0 to {seeds - 1})"] if seeds else []
    scale = settings.get("scale")
    if isinstance(scale, Mapping):
        facts.append(f"scale {scale['name']}")
        facts += [f"{name.replace('_', ' ')} {size:,}" for name, size in dict(scale["sizes"]).items()]
    if settings.get("git_commit"):
        facts.append(f"commit {settings['git_commit']}")
    facts += [f"{name} {version}" for name, version in dict(settings.get("versions", {})).items()]
    yield (", ".join(facts) + "; " if facts else "") + (
        "`results.json` holds each seed's numbers and all settings."
    )


def claims_table(
    checks: Sequence[Check], prefix: str = "", elsewhere: Mapping[str, Mapping[str, str]] | None = None
) -> str:
    """Number, claim, verdict, published and own numbers as a Markdown table.

    Args:
        prefix: Before each number, such as ``3.`` for a page's third finding.
        elsewhere: Another world to what was found there, by the number of a claim; it has a column where
            one of these claims is among them.
    """
    rows = [
        (f"{prefix}{number}", check.claim, f"**{check.verdict}**", check.paper, check.here)
        for number, check in enumerate(checks, 1)
    ]
    numbers = {row[0] for row in rows}
    worlds = {world: cells for world, cells in (elsewhere or {}).items() if numbers & cells.keys()}
    if not worlds:
        return _markdown(("", "claim", "verdict", "paper", "here"), rows)
    wider = [(*row, *(cells.get(row[0], _ABSENT) for cells in worlds.values())) for row in rows]
    return _markdown(("", "claim", "verdict in the lab", "paper", "lab", *worlds), wider)


def whys(checks: Sequence[Check], prefix: str = "") -> str:
    """What explains the verdicts, a Markdown item for each check that says it, by its number."""
    numbered = enumerate(checks, 1)
    return "\n".join(f"- *Why {prefix}{number}:* {check.why}" for number, check in numbered if check.why)


def _markdown_table(table: Table) -> str:
    rows = [
        (
            name,
            *(
                format_estimate(cell, percent=table.percent, digits=table.digits)
                if isinstance(cell, Estimate)
                else cell or _ABSENT
                for cell in cells
            ),
        )
        for name, cells in table.rows
    ]
    return _markdown(("", *table.columns), rows)


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(map(_escaped, columns)), " | ".join("---" for _ in columns)]
    lines += [" | ".join(map(_escaped, row)) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
