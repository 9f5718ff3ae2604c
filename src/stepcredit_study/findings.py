"""The published findings in the code's present words: tables, plots, verdicts, and the page of all.

Nothing is measured: each finding is concluded again from the numbers that lie in its ``results.json``.

Run: python -m stepcredit_study.findings --results docs/results --page docs/findings.md
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepcredit.typed_values import typed_record
from stepcredit_study.frame.experiment import load_experiment
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds
from stepcredit_study.pages.finding import Finding
from stepcredit_study.pages.findings import RESULTS, write_finding, write_findings_page
from stepcredit_study.pages.second_lab import FOLDER
from stepcredit_study.reproduce import NAMES, module_of
from stepcredit_study.word_problems.page import preregistered
from stepcredit_study.word_problems.verdicts import verdict_cells


def concluded_again(results: Path) -> Iterator[tuple[Finding, list[Measurement]]]:
    """Each published finding as the code concludes it from its measurements, and those."""
    for name in NAMES:
        path = results / name / RESULTS
        if path.is_file():
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            numbers = content["measurements"]
            scale = typed_record(Scale, content["settings"]["scale"], str(path))
            finding = load_experiment(module_of(name)).conclude(Seeds(numbers), scale)
            yield replace(finding, settings=content["settings"]), numbers


def in_word_problems(results: Path, page: Path) -> dict[str, Any]:
    """What the page of findings takes from the word problems; nothing where none are published.

    Args:
        page: Its file, from which links go.
    """
    path = results / "word-problems" / RESULTS
    if not path.is_file():
        return {}
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    link = Path(os.path.relpath(path.with_name("README.md"), page.parent)).as_posix()
    return {"elsewhere": verdict_cells(known), "last": preregistered(known, link)}


def main() -> None:
    """Parse the command line, and write the findings and their page."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--page", type=Path, default=Path("docs/findings.md"))
    arguments = parser.parse_args()
    for folder in (arguments.results, arguments.results / FOLDER):
        for finding, numbers in concluded_again(folder):
            write_finding(finding, folder / finding.name, numbers)
    words = in_word_problems(arguments.results, arguments.page)
    write_findings_page(arguments.results, arguments.page, NAMES, **words)


if __name__ == "__main__":
    main()
