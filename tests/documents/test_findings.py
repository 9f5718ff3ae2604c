"""The page of findings is what the committed results say."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepcredit.lab.labs import SECOND
from stepcredit_study import findings
from stepcredit_study.pages.findings import findings_page, read_findings
from stepcredit_study.pages.text import finding_markdown, finding_text
from stepcredit_study.reproduce import NAMES

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = pytest.mark.parametrize(
    "results", [DOCS / "results", DOCS / "results" / SECOND.name], ids=["lab", "lab2"]
)


def test_the_committed_page_agrees_with_the_committed_results() -> None:
    page = (DOCS / "findings.md").read_text(encoding="utf-8")
    words = findings.in_word_problems(DOCS / "results", DOCS / "findings.md")
    assert page == findings_page(DOCS / "results", DOCS, NAMES, **words), "run: make findings"


@RESULTS
def test_every_published_finding_is_one_of_the_experiments_and_has_its_files(results: Path) -> None:
    for finding in read_findings(results):
        assert finding.name in NAMES
        folder = results / finding.name
        assert (folder / "README.md").is_file()
        for plot in finding.plots:
            assert (folder / f"{plot.name}.svg").is_file()
        settings = finding.settings or {}
        assert str(settings["command"]).startswith("stepcredit reproduce ")
        assert ("--scale lab2" in settings["command"]) == (results.name == SECOND.name)


@RESULTS
def test_the_committed_results_are_what_the_code_concludes_from_their_measurements(results: Path) -> None:
    published = {finding.name: finding for finding in read_findings(results)}
    again = {finding.name: finding for finding, _ in findings.concluded_again(results)}
    assert published.keys() == again.keys()
    for name, finding in again.items():
        assert finding.checks == published[name].checks, "run: make findings"
        assert finding_text(finding) == finding_text(published[name]), "run: make findings"
        readme = (results / name / "README.md").read_text(encoding="utf-8")
        assert readme == finding_markdown(finding), "run: make findings"


def test_the_page_is_written_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "findings.md"
    monkeypatch.setattr("sys.argv", ["findings", "--results", str(tmp_path), "--page", str(page)])
    findings.main()
    assert "No results are published yet." in page.read_text()
