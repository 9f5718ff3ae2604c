import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.evaluation.builders import joined

from stepcredit.errors import DataError
from stepcredit.evaluation.best_of_n import BestOfNSettings
from stepcredit.evaluation.best_of_n_evaluation import evaluate_best_of_n
from stepcredit.evaluation.tables import Table, accuracy_table
from stepcredit.reports.evaluation import finding, read_evaluation, render_evaluation


@pytest.fixture
def content() -> dict[str, Any]:
    """A scorer that knows right from wrong beside one that prefers wrong ones."""
    generator = np.random.default_rng(0)
    rows = []
    for problem in range(8):
        for index in range(4):
            right = index == problem % 4
            good = float(right) + generator.normal(0, 0.1)
            rows.append(
                (
                    f"<b>{problem}</b>",
                    str(int(right)),
                    right,
                    {"good": (good, 0.5), "bad & worse": (-good, 0.0)},
                )
            )
    evaluation = evaluate_best_of_n(joined(rows), BestOfNSettings(ns=(1, 2, 4)), draws=200)
    return {"command": "eval best-of-n", "title": "Test", "data": ["x"], **evaluation.to_json()}


def test_the_page_shows_every_scorer_and_loads_nothing(content: dict[str, Any]) -> None:
    page = render_evaluation(content, [Table("all figures", ("a",), (("b",),), 1)], title="My evaluation")
    assert "<h1>My evaluation</h1>" in page
    assert "bad &amp; worse" in page
    assert "Best of 4 by good (reward) is right on 100.0% of the problems" in page
    assert not re.search(r"(?:src|href)=[\"']?https?:", page)
    assert "<b>0</b>?" not in page  # what a prompt holds is text


def test_failures_are_shown_with_texts_and_the_right_response(content: dict[str, Any]) -> None:
    page = render_evaluation(content, [])
    assert "the best right response to the same problem" in page
    assert "standard deviations" in page
    assert content["failures"]["good"] == []


def test_the_finding_compares_with_the_vote(content: dict[str, Any]) -> None:
    assert "points against majority voting (95% interval" in finding(content)
    del content["comparisons"][:]
    assert finding(content).endswith("of the problems.")


def test_every_result_is_in_the_full_table() -> None:
    rows = [(f"p{i}", "1", i % 2 == 0, {"prm": (float(i), 0.0)}) for i in range(4)]
    evaluation = evaluate_best_of_n(joined(rows), BestOfNSettings(ns=(1,)), draws=100)
    assert len(accuracy_table(evaluation, everything=True).rows) == len(evaluation.results)


@pytest.mark.parametrize("text", ["not json", "[]", json.dumps({"results": []})])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match=r"results\.json: is not"):
        read_evaluation(tmp_path / "results.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_evaluation(tmp_path / "results.json")


def test_one_problem_gives_a_page_without_intervals() -> None:
    rows = [("p", "1", index == 0, {"prm": (float(-index), 0.0)}) for index in range(2)]
    evaluation = evaluate_best_of_n(joined(rows), BestOfNSettings(ns=(1, 2)), draws=100)
    content = {"command": "eval best-of-n", "title": "T", "data": ["x"], **evaluation.to_json()}
    assert finding(content) == (
        "Best of 2 by prm (reward) is right on 100.0% of the problems: +50.0 points against majority voting."
    )
    page = render_evaluation(content, [accuracy_table(evaluation)])
    assert "With one problem there are neither intervals nor tests." in page
    assert re.search(r"1 problem,\s+2 responses each", page)


def test_comparisons_with_weighted_votes_are_folded_away(content: dict[str, Any]) -> None:
    shown, folded = render_evaluation(content, []).split("comparisons with weighted votes</summary>")
    comparisons = shown.split('id="comparisons"')[1]
    assert "best-of-n/good/reward" in comparisons
    assert "weighted-" not in comparisons
    assert "weighted-sigmoid/good/reward" in folded
