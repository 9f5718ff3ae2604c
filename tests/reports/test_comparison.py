from __future__ import annotations

from typing import Any

import pytest
from tests.reports.pages import parse

from stepcredit.reports.comparison import accuracy_against_cost, comparison_markdown, render_comparison


def method(name: str, accuracy: float, cost: float | None) -> dict[str, Any]:
    """A method whose second setting was chosen, or one that is not trained."""
    trials = [
        {"settings": {"learning_rate": rate, "beta": 0.5}, "accuracy": 0.3 + rate, "aggregate": "min"}
        for rate in (0.0001, 0.1)
    ]
    return {
        "name": name,
        "trials": [] if cost is None else trials,
        "chosen": None if cost is None else 1,
        "aggregate": "min",
        "accuracy": {
            "4": [accuracy - 0.1, accuracy - 0.2, accuracy],
            "16": [accuracy, accuracy - 0.05, accuracy + 0.05],
        },
        "cost": {
            "relative": cost,
            "relative_unshared": None if cost is None else 2 * cost,
            "collection": 1e9,
            "labelling": 0.0,
            "labelling_unshared": 0.0,
            "training": 2e9,
            "search": 4e9,
            "total": 3e9,
            "total_unshared": 3e9,
        },
    }


CONTENT: dict[str, Any] = {
    "methods": [method("ce", 0.8, 1.0), method("math-shepherd", 0.5, 4.0), method("votes", 0.4, None)],
    "references": {"majority": {"4": [0.45, 0.4, 0.5]}},
    "comparisons": [],
    "budget": 2,
    "choose_at": 4,
}


def test_each_trained_method_is_a_point_at_its_cost_and_accuracy() -> None:
    plot = parse(str(accuracy_against_cost(CONTENT)))
    rows = [[cell.text for cell in row.children if not isinstance(cell, str)] for row in plot.all("tr")]
    assert rows[1:] == [
        ["ce", "1", "80.0%", "75.0% to 85.0%"],
        ["math-shepherd", "4", "50.0%", "45.0% to 55.0%"],
    ]
    assert [mark.text for mark in plot.all("title")] == ["ce: 80.0% at 1", "math-shepherd: 50.0% at 4"]
    (circle,) = plot.all("circle")
    bars = [line for line in plot.of_class("line", "error") if line.number("x1") == line.number("x2")]
    dearer, cheaper = bars[1].number("x1"), bars[0].number("x1")
    assert dearer > cheaper == circle.number("cx")
    # Half of the range of accuracies is shown from the top down, each bar around its mark.
    assert bars[0].number("y2") < circle.number("cy") < bars[0].number("y1") < bars[1].number("y2")


def test_the_plot_says_how_many_responses_are_chosen_from() -> None:
    labels = [text.text for text in parse(str(accuracy_against_cost(CONTENT))).of_class("text", "label")]
    assert labels[0] == "Best-of-16 accuracy"


def test_a_cost_that_is_not_known_leaves_the_method_out_of_the_plot() -> None:
    content = {**CONTENT, "methods": [method("ce", 0.8, 1.0), method("unknown", 0.5, 0.0)]}
    assert [mark.text for mark in parse(str(accuracy_against_cost(content))).all("title")] == [
        "ce: 80.0% at 1"
    ]


def test_the_page_has_every_method_and_the_plot() -> None:
    page = parse(render_comparison(CONTENT))
    assert "Accuracy against cost" in page.text
    for name in ("ce", "math-shepherd", "votes", "majority"):
        assert name in page.text


@pytest.mark.parametrize(
    "line",
    [
        "| ce | 70.0 [60.0, 80.0] | 80.0 [75.0, 85.0] | min | 1.00 (2.00) | learning_rate 0.1, beta 0.5 |",
        "| majority | 45.0 [40.0, 50.0] |  | | | |",
        "| math-shepherd | learning_rate 0.0001, beta 0.5 | 30.0 by min |",
    ],
)
def test_the_summary_has_accuracy_cost_choice_and_every_trial(line: str) -> None:
    assert line in comparison_markdown(CONTENT).splitlines()


def test_one_test_problem_has_accuracies_without_intervals() -> None:
    alone = {**method("ce", 0.8, 1.0), "accuracy": {"4": [1.0, None, None]}}
    content = {**CONTENT, "methods": [alone], "references": {}}
    assert "| 100.0 |" in comparison_markdown(content)
    assert "100.0%" in parse(str(accuracy_against_cost(content))).text
    assert "nan" not in render_comparison(content).split("<main")[1].lower()
