"""The training log of a reward model, as far as reports draw it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from stepcredit.errors import DataError
from stepcredit.reports.plots import Axis, Line, Mark, Renderer, line_plot
from stepcredit.reports.plots.figure import figure


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLog:
    """Curves by training step; what a line of the log does not have is left out.

    Attributes:
        loss: (training step, training loss).
        heldout_auc: (training step, AUC of the response reward against correctness on held-out problems).
    """

    loss: tuple[tuple[float, float], ...]
    heldout_auc: tuple[tuple[float, float], ...]


def read_log(path: str | Path) -> TrainingLog | None:
    """Read ``train_log.jsonl``: objects with ``step`` and, where measured, ``loss`` and ``heldout_auc``.

    Returns:
        The curves, or ``None`` if there is no such file.

    Raises:
        DataError: A line is malformed; the message names it.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    curves: dict[str, list[tuple[float, float]]] = {"loss": [], "heldout_auc": []}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _parse(line, f"{path}:{number}")
        for name, curve in curves.items():
            if row.get(name) is not None:
                curve.append((_number(row, "step", path, number), _number(row, name, path, number)))
    return TrainingLog(loss=tuple(curves["loss"]), heldout_auc=tuple(curves["heldout_auc"]))


def training_plots(log: TrainingLog, *, render: Renderer = figure) -> list[Markup]:
    """The training loss and the held-out AUC against the training step, those that were measured."""
    drawn = [
        (log.loss, "Training loss", Axis(label="loss", low=0.0), Mark("orange", "circle")),
        (log.heldout_auc, "Held-out AUC", Axis(label="AUC", high=1.0), Mark("blue", "circle", strong=True)),
    ]
    notes = {
        "Training loss": "Mean over the responses since the last point.",
        "Held-out AUC": "Response reward, right against wrong final answers, on problems not trained on.",
    }
    return [
        line_plot(
            [Line(name=title, x=[x for x, _ in curve], y=[y for _, y in curve], mark=mark)],
            title=title,
            x=Axis(label="training step", low=0.0),
            y=axis,
            note=notes[title],
            render=render,
        )
        for curve, title, axis, mark in drawn
        if curve
    ]


def _parse(line: str, where: str) -> Mapping[str, object]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"is not JSON ({error})", where=where) from error
    if not isinstance(row, dict):
        raise DataError("must be an object", where=where)
    return row


def _number(row: Mapping[str, object], name: str, path: Path, line: int) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{name!r} should be a number, is {value!r:.40}", where=f"{path}:{line}")
    return float(value)
