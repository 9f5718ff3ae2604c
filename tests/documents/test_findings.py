"""The page of findings is what the committed results say."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepcredit_study import findings
from stepcredit_study.pages.findings import findings_page, read_findings
from stepcredit_study.pages.text import finding_markdown, finding_text
from stepcredit_study.reproduce import NAMES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_committed_page_agrees_with_the_committed_results() -> None:
    page = (DOCS / "findings.md").read_text(encoding="utf-8")
    assert page == findings_page(
        DOCS / "results", DOCS, NAMES, findings.in_word_problems(DOCS / "results")
    ), "run: make findings"


def test_every_published_finding_is_one_of_the_experiments_and_has_its_files() -> None:
    for finding in read_findings(DOCS / "results"):
        assert finding.name in NAMES
        folder = DOCS / "results" / finding.name
        assert (folder / "README.md").is_file()
        for plot in finding.plots:
            assert (folder / f"{plot.name}.svg").is_file()
        settings = finding.settings or {}
        assert str(settings["command"]).startswith("stepcredit reproduce ")


def test_the_committed_results_are_what_the_code_concludes_from_their_measurements() -> None:
    published = {finding.name: finding for finding in read_findings(DOCS / "results")}
    again = {finding.name: finding for finding, _ in findings.concluded_again(DOCS / "results")}
    assert published.keys() == again.keys()
    for name, finding in again.items():
        assert finding.checks == published[name].checks, "run: make findings"
        assert finding_text(finding) == finding_text(published[name]), "run: make findings"
        readme = (DOCS / "results" / name / "README.md").read_text(encoding="utf-8")
        assert readme == finding_markdown(finding), "run: make findings"


def test_the_page_is_written_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "findings.md"
    monkeypatch.setattr("sys.argv", ["findings", "--results", str(tmp_path), "--page", str(page)])
    findings.main()
    assert "No results are published yet." in page.read_text()
