"""Findings on disk: a folder each with numbers, tables and plots, and one page of all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stepcredit.errors import DataError, UserError
from stepcredit.reports.plots import standalone
from stepcredit.runs import write_json, write_text
from stepcredit.typed_values import typed_record
from stepcredit_study.pages.finding import Finding
from stepcredit_study.pages.page import render_findings
from stepcredit_study.pages.plots import draw
from stepcredit_study.pages.repeated import repeated_cells
from stepcredit_study.pages.second_lab import COLUMN, FOLDER, second_cells, second_sizes, tally
from stepcredit_study.pages.text import claims_table, finding_markdown, whys

RESULTS = "results.json"
INVESTIGATION = "investigation.md"
"""Beside published results: what somebody found out about a verdict, in Markdown."""


def finding_from_json(content: Any, *, where: str | Path) -> Finding:
    """The finding whose fields these are.

    Raises:
        DataError: It is something else.
    """
    try:
        return typed_record(Finding, content, str(where))
    except UserError as error:
        hint = "run `stepcredit reproduce` again"
        raise DataError(f"is not a finding ({error})", where=where, hint=hint) from error


def read_findings(folder: str | Path, order: Sequence[str] = ()) -> list[Finding]:
    """The findings whose folders lie in ``folder``.

    Args:
        folder: Where :func:`write_finding` wrote; folders with other results are passed over.
        order: Names that come first, in this order; the others follow by name.

    Raises:
        DataError: A file cannot be read.
    """
    findings = []
    for path in sorted(Path(folder).glob(f"*/{RESULTS}")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be read ({error})", where=path) from error
        if isinstance(content, dict) and {"checks", "purpose"} <= content.keys():
            content.pop("measurements", None)
            findings.append(finding_from_json(content, where=path))
    places = {name: place for place, name in enumerate(order)}
    return sorted(findings, key=lambda finding: (places.get(finding.name, len(places)), finding.name))


def write_finding(finding: Finding, folder: str | Path, numbers: Sequence[Mapping[str, float]]) -> None:
    """Write ``README.md``, a picture per plot, and last ``results.json``, each at once or not at all.

    Args:
        folder: Made if it is not there; pictures that an earlier finding had and this one has not go.
        numbers: What each seed measured, in the order of the seeds.
    """
    folder = Path(folder)
    pictures = {f"{plot.name}.svg": draw(plot, render=standalone) for plot in finding.plots}
    for old in folder.glob("*.svg"):
        if old.name not in pictures:
            old.unlink()
    for name, content in (pictures | {"README.md": finding_markdown(finding)}).items():
        write_text(folder / name, content)
    measured = [dict(measurement) for measurement in numbers]
    write_json(folder / RESULTS, asdict(finding) | {"measurements": measured})


def write_report(findings: Sequence[Finding], path: str | Path) -> None:
    """Write one HTML page of all findings, verdicts first; it needs no other file."""
    write_text(path, render_findings(findings))


def write_findings_page(
    results: str | Path,
    path: str | Path,
    order: Sequence[str] = (),
    elsewhere: Mapping[str, str] | None = None,
    last: str = "",
) -> None:
    """Write the Markdown page of published findings; see :func:`findings_page`."""
    text = findings_page(results, Path(path).parent, order, elsewhere, last)
    write_text(path, text)


def findings_page(
    results: str | Path,
    folder: str | Path,
    order: Sequence[str] = (),
    elsewhere: Mapping[str, str] | None = None,
    last: str = "",
) -> str:
    """Claim, paper, here, verdict and why of every published finding, as Markdown.

    Args:
        results: Folder of published results. Where ``investigation.md`` lies beside a finding's results, also
            those of the second lab, its text stands under the finding.
        folder: Where the page will lie; links are relative to it.
        order: Names of the findings in the order of the page.
        elsewhere: Number of a claim to what was found in the word problems.
        last: A section after all findings.

    Where findings of the second lab lie beside the results, there is a column for them.
    """
    results = Path(results)
    findings, second = read_findings(results, order), read_findings(results / FOLDER, order)
    worlds = {
        **repeated_cells(findings),
        COLUMN: second_cells(findings, second),
        "word problems": elsewhere or {},
    }
    measured_again = {finding.name for finding in second}
    parts = [
        "# The paper's findings, repeated",
        "Claims of [arXiv:2412.01981](https://arxiv.org/abs/2412.01981) and of its critics beside what "
        "`stepcredit reproduce` measured in a synthetic world, [the lab](lab.md)."
        f"{second_sizes(second)} A claim *holds* if the whole 95% interval over seeds, which redraw "
        "problems, responses and training, lies on the claim's side; it *does not hold* if the whole "
        "interval lies on the other side, or if no seed shows any difference; otherwise it is *undecided*. "
        "A claim with several parts does not hold if one part does not, and is undecided if one part is. "
        "Intervals are Student's, so an end may lie outside the possible range; nothing is corrected for the "
        "number of claims; and the lab's "
        "policies are the same in all seeds, so an interval says nothing about other policies or problems. "
        "Unless another unit is named, the paper's numbers are accuracies on MATH-500 in per cent, means "
        "over three generators and best-of-4, 16 and 64. This page is made from the results by `make "
        "findings`; [how to run and extend the experiments](reproduction.md).",
        *([] if findings else ["No results are published yet."]),
    ]
    for number, finding in enumerate(findings, 1):
        links = f"[Tables and plots]({_link(results / finding.name, folder)})"
        if finding.name in measured_again:
            links += f", [those of the second lab]({_link(results / FOLDER / finding.name, folder)})"
        parts += [f"## {number}. {finding.title}", f"{finding.purpose} {links}.", ""]
        parts += [claims_table(finding.checks, f"{number}.", worlds), whys(finding.checks, f"{number}.")]
        for investigation in (
            results / finding.name / INVESTIGATION,
            results / FOLDER / finding.name / INVESTIGATION,
        ):
            if investigation.is_file():
                parts.append(investigation.read_text(encoding="utf-8").strip())
    parts.append(last)
    if findings:
        parts += ["## How many claims hold", tally(findings, second)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _link(result: Path, folder: str | Path) -> str:
    return Path(os.path.relpath(result / "README.md", folder)).as_posix()
