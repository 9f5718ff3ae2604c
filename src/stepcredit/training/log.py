"""The training log: its lines, its file, and what follows from it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerState

from stepcredit.runs import atomic_path
from stepcredit.training.heldout import HELDOUT_METRICS

LOG_FILE = "train_log.jsonl"

_ORDER = (
    "loss",
    "grad_norm",
    "learning_rate",
    "reward_right",
    "reward_wrong",
    "baseline",
    "baseline_zero",
    "tokens",
    *(f"heldout_{name}" for name in HELDOUT_METRICS),
    "epoch",
)


def log_rows(state: TrainerState) -> list[dict[str, Any]]:
    """The training log so far: numbers that JSON can hold, the step first.

    A checkpoint sorts the names of what it holds, so they are put in one order here.
    """
    rows = []
    for entry in state.log_history:
        if not any(name == "loss" or name.startswith("heldout_") for name in entry):
            continue
        values = {
            name: entry[name]
            for name in _ORDER
            if name in entry and (isinstance(entry[name], int) or math.isfinite(entry[name]))
        }
        rows.append({"step": entry["step"], **values})
    return rows


def write_log(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON Lines, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def heldout_at(log: Sequence[dict[str, Any]], step: int) -> dict[str, float]:
    """The held-out metrics of a step, without their prefix."""
    rows = [row for row in log if row["step"] == step and "heldout_auc" in row]
    names = [name for name in (rows[-1] if rows else {}) if name.startswith("heldout_")]
    return {name.removeprefix("heldout_"): rows[-1][name] for name in names}


def baseline_of(log: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What rewards were compared with over a run, from its log; empty where there is no such thing.

    Each line stands for the steps since the one before.
    """
    rows = [row for row in log if "baseline" in row]
    if not rows:
        return {}
    steps = np.diff([0, *(row["step"] for row in rows)])
    total = sum(row["baseline"] * int(number) for row, number in zip(rows, steps, strict=True))
    return {
        "mean": total / int(steps.sum()),
        "zero_steps": sum(row["baseline_zero"] for row in rows),
        "steps": int(steps.sum()),
    }
