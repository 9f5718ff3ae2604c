"""Results as tables: for a terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcredit.evaluation.best_of_n_evaluation import BestOfNEvaluation
from stepcredit.evaluation.results import Result, plain
from stepcredit.evaluation.step_results import METRIC_NAMES, StepEvaluation, StepResult
from stepcredit.runs import write_text
from stepcredit.wording import quantity

ABSENT = "–"

_LATEX_ESCAPES = str.maketrans(
    {
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "–": "--",
        "−": "$-$",
        "<": "$<$",
        ">": "$>$",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
    }
)


@dataclass(frozen=True, slots=True)
class Table:
    """Cells to show.

    Attributes:
        rows: Cells; the first ``labels`` of each row are names, the others numbers.
        labels: How many columns hold names.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int

    def to_text(self) -> str:
        """For a terminal; as wide as it must be."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(
            title=self.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
        )
        for index, name in enumerate(self.header):
            table.add_column(name, no_wrap=True, justify="left" if index < self.labels else "right")
        for row in self.rows:
            table.add_row(*row)
        widest = sum(
            max(len(cell) for cell in column) + 3 for column in zip(self.header, *self.rows, strict=True)
        )
        buffer = io.StringIO()
        Console(
            file=buffer,
            width=max(widest + 4, len(self.title) + 2),
            highlight=False,
            markup=False,
            # A kernel shows what is printed instead of writing it to the file, and asks for colours.
            force_jupyter=False,
            force_terminal=False,
        ).print(table)
        return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()).rstrip()

    def to_markdown(self) -> str:
        """A pipe table under its title."""
        marks = [":--" if index < self.labels else "--:" for index in range(len(self.header))]
        lines = [f"**{self.title}**", ""]
        lines += [
            "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |"
            for row in (self.header, tuple(marks), *self.rows)
        ]
        return "\n".join(lines) + "\n"

    def to_latex(self) -> str:
        """A ``table`` with booktabs rules."""
        columns = "l" * self.labels + "r" * (len(self.header) - self.labels)
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(self.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
        ]
        lines += [r"\toprule", _latex_row(self.header), r"\midrule"]
        lines += [_latex_row(row) for row in self.rows]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    return text.replace("\\", r"\textbackslash ").translate(_LATEX_ESCAPES)


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"


def number(value: float | None, decimals: int = 3) -> str:
    """With a true minus, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:.{decimals}f}".replace("-", "−")


def with_interval(value: float, low: float, high: float) -> str:
    """``0.612 [0.581, 0.640]``; the figure alone where the interval is not known."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


def accuracy_table(evaluation: BestOfNEvaluation, *, everything: bool = False) -> Table:
    """Accuracy by method and n.

    Args:
        everything: Every aggregate and vote; otherwise each scorer's chosen aggregate with every vote, and
            plain best-of-n with the others.
    """
    chosen = {name: choice.aggregate for name, choice in evaluation.choices.items()}
    ns = sorted({row.n for row in evaluation.results})
    cells: dict[tuple[str, str, str], dict[int, Result]] = {}
    for row in evaluation.results:
        is_chosen = row.scorer is None or row.aggregate == chosen.get(row.scorer)
        if everything or is_chosen or row.method == "best-of-n":
            cells.setdefault((row.method, row.scorer or "", row.aggregate or ""), {})[row.n] = row
    rows = [
        (*key, *(with_interval(by_n[n].accuracy, by_n[n].low, by_n[n].high) for n in ns))
        for key, by_n in cells.items()
    ]
    title = f"Accuracy over {quantity(evaluation.num_problems, 'problem')}, with 95% intervals over problems"
    return Table(title, ("method", "scorer", "aggregate", *(f"n = {n}" for n in ns)), tuple(rows), 3)


def comparison_table(evaluation: BestOfNEvaluation) -> Table:
    """Paired differences of the methods chosen beforehand."""
    rows = [
        (
            str(row.n),
            row.first,
            row.second,
            with_interval(row.difference, row.low, row.high),
            _p_value(row.p_value),
            _p_value(row.p_holm),
        )
        for row in evaluation.comparisons
    ]
    title = f"Paired differences, p corrected for {quantity(len(rows), 'comparison')} (Holm)"
    return Table(title, ("n", "first", "second", "difference", "p", "p (Holm)"), tuple(rows), 3)


def _p_value(value: float) -> str:
    return "<0.0001" if value < 1e-4 else number(value, 4)


def best_of_n_text(evaluation: BestOfNEvaluation) -> str:
    """Everything for a terminal."""
    parts = [accuracy_table(evaluation).to_text()]
    if evaluation.comparisons:
        parts.append(comparison_table(evaluation).to_text())
    lines = [
        f"{name}: {choice.aggregate}, temperature {choice.temperature:g}, chosen on {choice.chosen_on}"
        for name, choice in evaluation.choices.items()
        if choice.chosen_on != "fixed"
    ]
    lines += _closing(evaluation.excluded, evaluation.notes)
    return "\n\n".join([*parts, "\n".join(lines)] if lines else parts)


def _closing(excluded: Mapping[str, int], notes: Iterable[str]) -> list[str]:
    left_out = [f"left out, {reason}: {count:,}" for reason, count in excluded.items()]
    return left_out + [f"note: {note}" for note in notes]


_STEP_LABELS = ("subset", "scorer", "score of", "threshold")


def step_tables(evaluation: StepEvaluation) -> list[Table]:
    """One table for the metrics without a threshold, one for those that need one."""
    tables = []
    for title, with_threshold in (("Right and wrong steps", False), ("With a threshold", True)):
        rows = [row for row in evaluation.results if (row.threshold_from is not None) == with_threshold]
        if rows:
            tables.append(_metrics_table(title, rows, with_threshold))
    return tables


def _metrics_table(title: str, rows: Sequence[StepResult], with_threshold: bool) -> Table:
    metrics = list(dict.fromkeys(row.metric for row in rows))
    cells: dict[tuple[str, ...], dict[str, StepResult]] = {}
    for row in rows:
        scored = {"reward": "step", "value": "prefix"}.get(row.quantity, row.quantity)
        key: tuple[str, ...] = (row.subset, row.scorer, scored)
        if with_threshold:
            key = (*key, str(row.threshold_from))
        cells.setdefault(key, {})[row.metric] = row
    body = []
    for key, by_metric in cells.items():
        shown = [
            with_interval(figure.value, figure.low, figure.high) if (figure := by_metric.get(metric)) else ""
            for metric in metrics
        ]
        body.append((*key, *shown))
    labels = 4 if with_threshold else 3
    header = (*_STEP_LABELS[:labels], *(METRIC_NAMES[metric] for metric in metrics))
    return Table(f"{title}, with 95% intervals over problems", header, tuple(body), labels)


_COUNTED = {
    "problems": ("problem", "problems"),
    "responses": ("response", "responses"),
    "responses_with_error": ("response with error", "responses with error"),
    "labelled_steps": ("labelled step", "labelled steps"),
    "wrong_steps": ("wrong step", "wrong steps"),
}


def counts_text(counts: Mapping[str, int]) -> str:
    """How much data there is, e.g. ``6 problems, 12 responses, 1 response with error``."""
    return ", ".join(quantity(count, *_COUNTED[name]) for name, count in counts.items())


def step_text(evaluation: StepEvaluation) -> str:
    """Everything for a terminal."""
    parts = [table.to_text() for table in step_tables(evaluation)]
    lines = [f"{subset}: {counts_text(counts)}" for subset, counts in evaluation.counts.items()]
    lines += _closing(evaluation.excluded, evaluation.notes)
    return "\n\n".join([*parts, "\n".join(lines)] if lines else parts)


def write_tables(folder: Path, tables: Sequence[Table], rows: Iterable[Any]) -> None:
    """Write ``tables.md``, ``tables.tex`` and, one row per figure and unrounded, ``results.csv``.

    Args:
        folder: Must exist.
    """
    write_text(folder / "tables.md", "\n".join(table.to_markdown() for table in tables))
    write_text(folder / "tables.tex", "\n".join(table.to_latex() for table in tables))
    buffer = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        values = dataclasses.asdict(row)
        if writer is None:
            writer = csv.DictWriter(buffer, list(values), lineterminator="\n")
            writer.writeheader()
        writer.writerow({name: "" if plain(value) is None else value for name, value in values.items()})
    write_text(folder / "results.csv", buffer.getvalue())
