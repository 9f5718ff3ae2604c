"""Results as tables: for a terminal, CSV, Markdown and LaTeX."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from stepcredit.evaluation.best_of_n_evaluation import BestOfNEvaluation


def best_of_n_text(evaluation: BestOfNEvaluation) -> str:
    """Accuracy by method and n, then what was chosen, left out and noted."""
    ns = sorted({row.n for row in evaluation.results})
    table = Table(title=f"accuracy, {evaluation.num_problems} problems [95% interval]", title_justify="left")
    for column in ("method", "scorer", "aggregate", *(f"n = {n}" for n in ns)):
        table.add_column(column, no_wrap=True)
    cells: dict[tuple[str, str, str], dict[int, str]] = {}
    for row in evaluation.results:
        key = row.method, row.scorer or "", row.aggregate or ""
        cells.setdefault(key, {})[row.n] = f"{row.accuracy:.3f} [{row.low:.3f}, {row.high:.3f}]"
    for key, by_size in cells.items():
        table.add_row(*key, *(by_size[n] for n in ns))
    buffer = io.StringIO()
    console = Console(file=buffer, width=60 + 24 * len(ns), highlight=False, markup=False)
    console.print(table)
    for reason, count in evaluation.excluded.items():
        console.print(f"left out: {count} {reason}")
    for note in evaluation.notes:
        console.print(f"note: {note}")
    return buffer.getvalue().rstrip()
