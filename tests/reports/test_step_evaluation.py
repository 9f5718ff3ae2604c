import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.evaluation.builders import random_steps
from tests.reports.pages import assert_self_contained

from stepcredit.evaluation.step_results import (
    Context,
    StepEvaluation,
    StepResult,
    error_finding_rows,
    mean_rows,
    step_counts,
    step_rows,
    verdict_rows,
)
from stepcredit.reports.evaluation import render_evaluation
from stepcredit.reports.step_evaluation import headline, main_rows

PUBLISHED = "fixed: 0.5 (published)"


def content_of(command: str, parts: dict[str, int]) -> dict[str, Any]:
    """Two scorers on parts with so many responses, as a ``results.json``."""
    rows: list[StepResult] = []
    details, counts = {}, {}
    for seed, (name, size) in enumerate(parts.items()):
        for scorer in ("prm", "other"):
            steps = random_steps(size, seed + (scorer == "other"))
            context = Context(name, scorer, draws=200)
            counts[name] = step_counts(steps)
            measured, details[f"{name}/{scorer}/reward"] = step_rows(context, steps, "reward")
            rows += measured
            if command == "eval prmbench":
                rows += verdict_rows(context, steps, "reward", {PUBLISHED: 0.5, "tuned on dev.jsonl": 0.4})
            else:
                rows += error_finding_rows(context, steps, "reward", {"fixed: 0": 0.0, "tuned on gsm8k": 0.3})
    if command == "eval processbench":
        rows += mean_rows(rows, "f1")
    evaluation = StepEvaluation(results=tuple(rows), details=details, counts=counts)
    content = {"command": command, "title": "Test", "data": ["x"], **evaluation.to_json()}
    return dict(json.loads(json.dumps(content)))


def test_prmbench_opens_with_its_score_over_all_categories() -> None:
    content = content_of("eval prmbench", {"circular": 20, "simplicity": 20, "all": 30})
    table = headline(content)
    whole = next(
        row
        for row in content["results"]
        if (row["subset"], row["scorer"], row["metric"], row["threshold_from"])
        == ("all", "prm", "prm_score", PUBLISHED)
    )
    assert table.text.startswith(f"PRMScore over all categories: prm {whole['value']:.3f} (95% interval ")
    assert [subset for subset, _ in table.rows] == ["circular", "simplicity", "all"]
    assert table.caption.endswith("At the published threshold.")
    page = render_evaluation(content, [])
    assert page.index(table.text) < page.index("How much data there is")
    assert_self_contained(page)


def test_processbench_opens_with_the_mean_and_no_threshold_chosen_on_the_part() -> None:
    content = content_of("eval processbench", {"gsm8k": 20, "math": 20})
    origins = {(row["subset"], row["threshold_from"]) for row in main_rows(content)}
    assert origins == {
        ("gsm8k", "fixed: 0"),
        ("math", "tuned on gsm8k"),
        ("mean of subsets", "tuned on gsm8k"),
    }
    assert headline(content).text.startswith("F1 of finding the first error as a mean over the data: prm ")


@pytest.mark.parametrize("command", ["eval prmbench", "eval processbench", "eval steps"])
def test_titles_are_words_and_each_plot_has_one_row_per_part_and_scorer(command: str) -> None:
    page = render_evaluation(content_of(command, {"gsm8k": 20, "math_hard": 20}), [])
    assert "AUC of first wrong steps against the right steps before them" in page
    assert "_auc" not in page.split("<main")[1].split("Diagnostics</h2>")[0]
    figures = page.split('<figure class="plot">')[1:]
    assert figures
    for figure in figures:
        if "math hard, prm" in figure:
            table = figure.split("<tbody>")[1].split("</tbody>")[0]
            assert table.count("math hard, prm") == 1


def test_one_response_gives_a_page_without_intervals(tmp_path: Path) -> None:
    content = content_of("eval steps", {"mine": 1})
    table = headline(content)
    assert all("to" not in cell.interval for _, cells in table.rows for cell in cells)
    assert "nan" not in render_evaluation(content, []).lower().replace("pointer", "")
    assert not np.isnan(content["counts"]["mine"]["problems"])
