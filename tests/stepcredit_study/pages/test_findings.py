from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tests.reports.pages import parse

from stepcredit.errors import DataError
from stepcredit_study.pages.finding import Check, Estimate, Finding, Plot, Series, Table, format_estimate
from stepcredit_study.pages.findings import (
    finding_from_json,
    findings_page,
    read_findings,
    write_finding,
    write_findings_page,
    write_report,
)
from stepcredit_study.pages.text import finding_text

SVG = "{http://www.w3.org/2000/svg}"


def estimate(mean: float, reach: float | None = 0.02, seeds: int = 5) -> Estimate:
    low, high = (None, None) if reach is None else (mean - reach, mean + reach)
    return Estimate(mean=mean, low=low, high=high, values=(mean,) * seeds)


CURVE = Plot(
    name="curve",
    title="Accuracy against <responses>",
    kind="curves",
    x_label="Responses",
    y_label="Accuracy",
    series=tuple(
        Series(name=name, x=(1.0, 2.0, 8.0), y=(estimate(0.4), estimate(0.5), estimate(height)))
        for name, height in (("CE & friends", 0.7), ("DPO", 0.6))
    ),
    x_log2=True,
)
FOREST = Plot(
    name="forest",
    title="Accuracy by method",
    kind="intervals",
    x_label="Accuracy",
    series=(Series(name="CE", y=(estimate(0.8),)), Series(name="DPO", y=(estimate(0.7, None, 1),))),
    reference=0.5,
)
COST = Plot(
    name="cost",
    title="Accuracy against cost",
    kind="points",
    x_label="Operations",
    y_label="AUC",
    percent=False,
    series=(
        Series(name="CE", x=(1.0,), y=(estimate(0.8),)),
        Series(name="DPO", x=(2.0,), y=(estimate(0.7),)),
    ),
)
FINDING = Finding(
    name="made-up",
    title="Does it | hold?",
    purpose="To see.",
    differs="Everything.",
    tables=(
        Table(
            title="Accuracy",
            columns=("mid @4", "paper"),
            rows=(("CE", (estimate(0.5), "48.4")), ("DPO", (estimate(0.25, None, 1), None))),
            caption="Per cent.",
        ),
        Table(title="Cost", columns=("relative",), rows=(("CE", (estimate(1.5),)),), percent=False, digits=2),
    ),
    checks=(
        Check(claim="It holds.", paper="1 > 0", here="+2.0 [+1.0, +3.0]", verdict="holds"),
        Check(claim="It fails.", paper="0 | 1", here="-2.0", verdict="does not hold", why="Too <easy>."),
        Check(claim="It may.", paper="0", here="0", verdict="undecided"),
    ),
    plots=(CURVE, FOREST, COST),
    notes=("Mind the gap.",),
    settings={
        "command": "stepcredit reproduce made-up",
        "scale": {"name": "lab", "sizes": {"train_prompts": 1200}},
        "versions": {"torch": "2.13"},
        "git_commit": "0123456789abcdef",
    },
)
NUMBERS = [{"mid/ce/4": 0.5 + seed / 100} for seed in range(5)]


def test_a_finding_goes_to_json_and_back() -> None:
    content = json.loads(json.dumps(asdict(FINDING)))
    again = finding_from_json(content, where="here")
    assert json.dumps(asdict(again)) == json.dumps(content)
    assert tuple(again.tables) == FINDING.tables
    assert tuple(again.plots) == FINDING.plots


@pytest.mark.parametrize("broken", [{}, {"name": 3}, [], {**asdict(FINDING), "checks": [{"x": 1}]}])
def test_what_is_no_finding_is_refused(broken: Any) -> None:
    with pytest.raises(DataError, match=r"results\.json: is not a finding"):
        finding_from_json(broken, where="results.json")


@pytest.mark.parametrize(
    ("value", "percent", "digits", "text"),
    [
        (estimate(0.5), True, 1, "50.0 [48.0, 52.0]"),
        (estimate(-0.5, None), True, 0, "-50"),
        (estimate(1.5), False, 2, "1.50 [1.48, 1.52]"),
    ],
)
def test_an_estimate_in_a_table(value: Estimate, percent: bool, digits: int, text: str) -> None:
    assert format_estimate(value, percent=percent, digits=digits) == text


def test_the_terminal_shows_aligned_tables_and_every_claim() -> None:
    text = finding_text(FINDING)
    lines = text.splitlines()
    assert lines[0] == "made-up: Does it | hold?"
    start = lines.index("Accuracy") + 1
    assert lines[start : start + 3] == [
        "        mid @4  paper",
        "CE   50.0 ±2.0   48.4",
        "DPO       25.0      –",
    ]
    assert "CE  1.50 ±0.02" in lines
    assert "[does not hold] It fails." in lines
    assert "    paper: 0 | 1" in lines
    assert "    why:   Too <easy>." in lines
    assert "Means over 5 seeds; ± and brackets: 95% intervals over seeds." in lines
    assert max(map(len, lines)) <= 100


def test_a_folder_holds_the_page_the_pictures_and_every_seeds_numbers(tmp_path: Path) -> None:
    write_finding(FINDING, tmp_path / "made-up", NUMBERS)
    folder = tmp_path / "made-up"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "cost.svg",
        "curve.svg",
        "forest.svg",
        "results.json",
    ]
    content = json.loads((folder / "results.json").read_text())
    assert content["measurements"] == NUMBERS
    assert content["settings"]["command"] == "stepcredit reproduce made-up"
    readme = (folder / "README.md").read_text()
    assert "| CE | 50.0 [48.0, 52.0] | 48.4 |" in readme
    assert "| 2 | It fails. | **does not hold** | 0 \\| 1 | -2.0 |" in readme
    assert "- *Why 2:* Too <easy>." in readme
    assert "    stepcredit reproduce made-up" in readme
    assert "5 seeds (0 to 4), scale lab, train prompts 1,200, commit 0123456789abcdef, torch 2.13" in readme
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme):
        assert (folder / picture).is_file()


def test_written_again_a_folder_has_no_pictures_of_before(tmp_path: Path) -> None:
    write_finding(FINDING, tmp_path, NUMBERS)
    write_finding(replace(FINDING, plots=(FOREST,)), tmp_path, NUMBERS)
    assert [path.name for path in tmp_path.glob("*.svg")] == ["forest.svg"]


@pytest.mark.parametrize("plot", [CURVE, FOREST, COST], ids=lambda plot: plot.name)
def test_a_picture_stands_alone_for_light_and_dark_viewers(plot: Plot, tmp_path: Path) -> None:
    write_finding(replace(FINDING, plots=(plot,)), tmp_path, NUMBERS)
    content = (tmp_path / f"{plot.name}.svg").read_text()
    root = ElementTree.fromstring(content)
    assert root.tag == f"{SVG}svg"
    title = root.find(f"{SVG}title")
    assert title is not None
    assert title.text == plot.title
    style = root.find(f"{SVG}style")
    assert style is not None
    rules = style.text or ""
    assert "var(" not in rules, "not every viewer knows variables"
    light, dark = rules.split("@media (prefers-color-scheme: dark)")
    for name in ("blue", "orange"):
        colours = [re.search(rf"\.{name} {{ color: (#\w+)", part) for part in (light, dark)]
        assert all(colours)
        assert len({colour[1] for colour in colours if colour}) == 2
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert plot.title in words
    assert plot.x_label in words
    assert {series.name for series in plot.series} <= words, "names stand in the picture"
    assert any("95% intervals over 5 seeds" in (word or "") for word in words)
    description = root.find(f"{SVG}desc")
    assert description is not None
    assert "to" in (description.text or "")
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    box = [float(value) for value in root.attrib["viewBox"].split()]
    assert width / height == pytest.approx(box[2] / box[3])
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.attrib["x"]) <= box[2]


def test_intervals_of_shares_are_drawn_no_further_than_all(tmp_path: Path) -> None:
    plot = replace(FOREST, series=(Series(name="CE", y=(estimate(0.95, 0.2),)),))
    write_finding(replace(FINDING, plots=(plot,)), tmp_path, NUMBERS)
    picture = (tmp_path / "forest.svg").read_text()
    assert "95.0%  (75.0% to 100.0%)" in picture
    assert "95% intervals over 5 seeds, cut at 100%." in picture
    assert "110%" not in picture
    write_finding(replace(FINDING, plots=(replace(plot, percent=False),)), tmp_path, NUMBERS)
    assert "(0.750 to 1.150)" in (tmp_path / "forest.svg").read_text()


def test_one_seed_is_told_to_have_no_interval(tmp_path: Path) -> None:
    plot = replace(FOREST, series=(Series(name="CE", y=(estimate(0.8, None, 1),)),))
    write_finding(replace(FINDING, plots=(plot,)), tmp_path, NUMBERS[:1])
    assert "One seed, so there is no interval." in (tmp_path / "forest.svg").read_text()


def test_the_report_is_one_file_with_the_verdicts_first(tmp_path: Path) -> None:
    other = replace(FINDING, name="other", title="And this?", checks=FINDING.checks[:1], plots=())
    write_report([FINDING, other], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = parse(text)
    assert [heading.text for heading in page.all("h1")] == [
        "The paper's findings, repeated in a synthetic world"
    ]
    summary, *sections = page.of_class("table", "claims")
    rows = [row.text for row in summary.all("tr")]
    assert rows[1] == "Does it | hold?made-up"
    assert rows[2:5] == ["It holds.holds", "It fails.does not hold", "It may.undecided"]
    assert [table.all("tr")[1].text for table in sections] == ["It holds. 1 > 0 +2.0 [+1.0, +3.0] holds"] * 2
    assert len(page.of_class("figure", "plot")) == 3
    numbers = page.of_class("table", "estimates")[0].all("td")
    assert [cell.text for cell in numbers] == ["50.048.0 to 52.0", "48.4", "25.0", "–"]
    assert "stepcredit reproduce made-up" in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text), "nothing is loaded from elsewhere"


def test_findings_of_a_folder_are_read_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("alpha", "beta", "gamma"):
        write_finding(replace(FINDING, name=name), tmp_path / name, NUMBERS)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "results.json").write_text('{"seeds": []}')
    assert [finding.name for finding in read_findings(tmp_path, ("gamma", "beta"))] == [
        "gamma",
        "beta",
        "alpha",
    ]
    (tmp_path / "beta" / "results.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_findings(tmp_path)


def test_the_page_of_findings_has_claim_paper_here_verdict_and_why(tmp_path: Path) -> None:
    results = tmp_path / "docs" / "results"
    write_finding(FINDING, results / "made-up", NUMBERS)
    (results / "made-up" / "investigation.md").write_text("The world is too easy: see the log.\n")
    write_findings_page(results, tmp_path / "docs" / "findings.md")
    text = (tmp_path / "docs" / "findings.md").read_text()
    beginning, _, tally = text.partition("## How many claims hold")
    assert "In the first lab, of 3 published claims 1 holds, 1 does not hold, 1 is undecided." in tally
    assert "published claims" not in beginning
    assert "## 1. Does it | hold?" in text
    assert "| 1.2 | It fails. | **does not hold** | 0 \\| 1 | -2.0 |" in text
    assert "- *Why 1.2:* Too <easy>." in text
    assert "The world is too easy: see the log." in text
    assert "(results/made-up/README.md)" in text
    assert "No results are published yet." in findings_page(tmp_path / "nothing", tmp_path)


def test_what_another_world_showed_stands_beside_the_lab_where_it_was_measured(tmp_path: Path) -> None:
    write_finding(FINDING, tmp_path / "made-up", NUMBERS)
    text = findings_page(tmp_path, tmp_path, elsewhere={"1.2": "**holds** (0.1)", "9.9": "nowhere"})
    assert "| verdict in the lab | paper | lab | word problems |" in text
    assert "| **does not hold** | 0 \\| 1 | -2.0 | **holds** (0.1) |" in text
    assert "| It holds. | **holds** | 1 > 0 | +2.0 [+1.0, +3.0] | – |" in text
    assert "nowhere" not in text


def test_the_second_lab_stands_beside_the_first_claim_by_claim(tmp_path: Path) -> None:
    settings = {
        "scale": {
            "name": "lab2",
            "sizes": {"train_prompts": 40, "train_responses": 8, "test_prompts": 9, "test_responses": 64},
        }
    }
    verdicts = (
        Check(claim="It holds.", paper="1 > 0", here="+0.5", verdict="does not hold"),
        Check(claim="It fails.", paper="0 | 1", here="-1.0", verdict="does not hold"),
    )
    write_finding(FINDING, tmp_path / "made-up", NUMBERS)
    write_finding(replace(FINDING, name="other"), tmp_path / "other", NUMBERS)
    second = replace(FINDING, checks=verdicts, settings=settings)
    write_finding(second, tmp_path / "lab2" / "made-up", NUMBERS)
    (tmp_path / "lab2" / "made-up" / "investigation.md").write_text("In the second lab it is too short.\n")
    text = findings_page(tmp_path, tmp_path, elsewhere={"1.2": "**holds** (0.1)"})
    beginning, _, tally = text.partition("## How many claims hold")
    assert "5 seeds, 40 problems with 8 responses to train on, and 9 with 64 to be tested on" in beginning
    assert "| verdict in the lab | paper | lab | second lab | word problems |" in text
    assert "| 1 > 0 | +2.0 [+1.0, +3.0] | **does not hold** (+0.5) | – |" in text
    assert "| 0 \\| 1 | -2.0 | **does not hold** (-1.0) | **holds** (0.1) |" in text
    assert "| 1.3 | It may. | **undecided** | 0 | 0 | not measured | – |" in text
    assert "| 2.1 | It holds. | **holds** | 1 > 0 | +2.0 [+1.0, +3.0] | not measured |" in text
    assert "[those of the second lab](lab2/made-up/README.md)" in text
    assert "(lab2/other/README.md)" not in text
    assert text.index("In the second lab it is too short.") < text.index("## 2. ")
    assert "In the first lab, of 6 published claims 2 hold, 2 do not hold, 2 are undecided." in tally
    assert "In the second lab, of 2 published claims 2 do not hold." in tally
    assert (
        "Of 2 published claims measured in both, 0 hold in both worlds, 1 holds in one and not in the "
        "other, 1 holds in neither, and the verdict on 0 is undecided in at least one. "
        "Of all claims, 2 are decided in both: 1 alike and 1 with opposite verdicts." in tally
    )


def test_without_a_second_lab_the_page_has_no_column_for_it(tmp_path: Path) -> None:
    write_finding(FINDING, tmp_path / "made-up", NUMBERS)
    text = findings_page(tmp_path, tmp_path)
    assert "second lab" not in text
    assert "| verdict | paper | here |" in text


def test_a_claim_that_is_repeated_in_a_setting_of_its_own_stands_beside_the_first(tmp_path: Path) -> None:
    check = Check(claim="It fails.", paper="not there", here="+7.0", verdict="undecided")
    again = replace(FINDING, name="positive-control", checks=(check,), plots=(), tables=())
    write_finding(FINDING, tmp_path / "made-up", NUMBERS)
    write_finding(again, tmp_path / "positive-control", NUMBERS)
    text = findings_page(tmp_path, tmp_path, order=("made-up", "positive-control"))
    first, _, second = text.partition("## 2.")
    assert "| verdict in the lab | paper | lab | where heads can succeed |" in first
    assert "| **does not hold** | 0 \\| 1 | -2.0 | **undecided** (+7.0) |" in first
    assert "where heads can succeed" not in second
