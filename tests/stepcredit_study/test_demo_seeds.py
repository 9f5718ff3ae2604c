from __future__ import annotations

import json
from pathlib import Path

from stepcredit_study.demo_seeds import page

PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "demo"


def test_the_committed_page_agrees_with_the_committed_results() -> None:
    content = json.loads((PUBLISHED / "results.json").read_text(encoding="utf-8"))
    assert (PUBLISHED / "README.md").read_text(encoding="utf-8") == page(content), "run: make results"


def test_a_cell_is_the_mean_over_seeds_with_their_numbers() -> None:
    content = json.loads((PUBLISHED / "results.json").read_text(encoding="utf-8"))
    aucs = [seed["policies"]["weak"]["localisation"]["auc"] for seed in content["seeds"]]
    cell = f"{sum(aucs) / 3:.4f} ({aucs[0]:.4f}, {aucs[1]:.4f}, {aucs[2]:.4f})"
    weak = page(content).partition("## Responses of the weak policy")[2].partition("##")[0]
    assert f"before any error | {cell} |" in weak
