"""What the readers of foreign rows share: fields that have no place in a record, steps and their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from stepcredit.data.records import ROLLOUT_FIELDS
from stepcredit.types import Rollout, StepLabel

STEP_SEPARATOR = "\n\n"
"""Joins the steps of formats that list them: a step may itself hold line ends."""


UNHELD = ("answer", "prediction", "finish_reason", "policy", "sampling", "response_token_ids")
"""Fields that the formats of training sets have no place for."""


def others(row: Mapping[str, Any], *known: str) -> dict[str, Any]:
    """Fields that the record has no place for; they become its extras.

    One that bears the name of a record's field means something else there, and is called ``source_...``.
    """
    return {
        f"source_{name}" if name in ROLLOUT_FIELDS else name: value
        for name, value in row.items()
        if name not in known
    }


def note_lost(rollout: Rollout, lost: Counter[str], *fields: str) -> None:
    """Count those of the fields that a format has no place for and the rollout has."""
    for name in fields:
        if getattr(rollout, name) is not None:
            lost[name] += 1


def joined_steps(steps: Sequence[str], separator: str = STEP_SEPARATOR) -> tuple[str, list[int]]:
    """The response that the steps make, and where each ends (the separator belongs to the step it ends)."""
    pieces = [step + separator for step in steps[:-1]] + list(steps[-1:])
    return "".join(pieces), list(accumulate(map(len, pieces)))


def labels_until_error(ends: Sequence[int], first_wrong: int | None) -> tuple[StepLabel, ...]:
    """Labels where only the first wrong step is known: nothing is said of the steps after it."""
    if first_wrong is None:
        return tuple(StepLabel(end, 1.0) for end in ends)
    return tuple(
        StepLabel(end, float(index < first_wrong)) for index, end in enumerate(ends[: first_wrong + 1])
    )
