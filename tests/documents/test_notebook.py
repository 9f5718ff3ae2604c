"""The notebook runs in a real kernel, and what is kept of its outputs is whole and names no machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

nbformat: Any = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[2]
NOTEBOOK = nbformat.read(ROOT / "docs" / "notebooks" / "first-hour.ipynb", as_version=4)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]
FEWER = {"count=100": "count=8", "count=24": "count=4", "num_samples=16": "num_samples=8", ", 16)": ")"}


def outputs(cells: list[Any], kind: str) -> list[str]:
    """What cells show in one format."""
    return [output.data[kind] for cell in cells for output in cell.outputs if kind in output.get("data", {})]


def check_whole(cells: list[Any]) -> None:
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    pages = outputs(cells, "text/html")
    assert any("rgba(" in page and "lowest" in page for page in pages), "a heat map"
    assert any("data:image/svg+xml" in page for page in pages), "a plot of ours"
    assert outputs(cells, "image/png"), "a plot of matplotlib"
    assert not [text for text in (*pages, *outputs(cells, "text/plain")) if "\x1b" in text]
    assert not [page for page in pages if re.search(r"<script|https?://(?!www\.w3\.org)", page)]


def test_it_has_about_ten_cells_that_were_all_run() -> None:
    assert 8 <= len(CODE) <= 12
    check_whole(CODE)


def test_no_machine_is_named_in_it() -> None:
    assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users|opt)/\S*", nbformat.writes(NOTEBOOK))


@pytest.mark.slow
def test_it_runs_in_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.from_dict(NOTEBOOK)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        for many, few in FEWER.items():
            cell.source = cell.source.replace(many, few)
    client.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    check_whole(cells)
