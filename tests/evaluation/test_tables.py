import csv
from dataclasses import dataclass
from pathlib import Path

import pytest

from stepcredit.evaluation.tables import Table, number, with_interval, write_tables


@dataclass
class Figure:
    name: str
    value: float | None


TABLE = Table("Share & more_", ("scorer", "n = 4"), (("a|b", "0.5 [−0.1, 0.9]"), ("50%", "–")), 1)


def test_markdown_keeps_pipes_inside_cells() -> None:
    assert TABLE.to_markdown().splitlines() == [
        "**Share & more_**",
        "",
        "| scorer | n = 4 |",
        "| :-- | --: |",
        r"| a\|b | 0.5 [−0.1, 0.9] |",
        "| 50% | – |",
    ]


def test_latex_escapes_what_it_must() -> None:
    latex = TABLE.to_latex()
    assert r"\caption{Share \& more\_}" in latex
    assert r"\begin{tabular}{lr}" in latex
    assert r"a|b & 0.5 [$-$0.1, 0.9] \\" in latex
    assert r"50\% & -- \\" in latex


def test_text_is_never_cut() -> None:
    wide = Table("t", ("name", "value"), (("x" * 150, "0.123"),), 1)
    assert "x" * 150 in wide.to_text()
    assert "…" not in wide.to_text()


def test_numbers_have_a_true_minus_and_a_dash_for_none() -> None:
    assert number(-0.12345) == "−0.123"
    assert number(float("nan")) == number(None) == "–"
    assert with_interval(0.5, 0.25, 0.75) == "0.500 [0.250, 0.750]"
    assert with_interval(0.5, float("nan"), 0.75) == "0.500"


def test_csv_is_unrounded_with_empty_cells_for_none(tmp_path: Path) -> None:
    write_tables(tmp_path, [TABLE], [Figure("a", 1 / 3), Figure("b", None)])
    with open(tmp_path / "results.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert float(rows[0]["value"]) == 1 / 3
    assert rows[1] == {"name": "b", "value": ""}
    assert (tmp_path / "tables.md").read_text() == TABLE.to_markdown()


def test_a_kernel_that_asks_for_colours_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = Table("Title", ("name", "value"), (("a", "1"),), 1).to_text()
    assert "\x1b" not in text
    assert text.splitlines()[0] == "Title"


def test_latex_escapes_what_its_fonts_would_show_as_another_sign() -> None:
    latex = Table("p", ("a^b", "p"), (("x~y", "<0.0001"),), 1).to_latex()
    assert r"a\textasciicircum{}b & p \\" in latex
    assert r"x\textasciitilde{}y & $<$0.0001 \\" in latex
