"""Where step scores go wrong, with texts, and what else they follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stepcredit.evaluation.failures import ShownStep, shown_steps
from stepcredit.evaluation.labelled_steps import LabelledSteps
from stepcredit.evaluation.score_columns import ScoreColumns
from stepcredit.stats import pearson, spearman
from stepcredit.types import PromptText, Rollout

_SHOWN = 3
"""Failures of each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailure:
    """A response whose steps are misjudged.

    Attributes:
        kind: ``missed``: a right step before the first wrong one scores lower than it. ``false alarm``: a
            step of a response without error scores very low.
        margin: By how much, in standard deviations of the step scores: first wrong minus lowest right
            step before it; or mean of all steps minus the lowest.
        correct: Whether the final answer is right, if that is known.
        first_wrong_step: Index of the scored step in which the first wrong one begins, if there is one.
    """

    kind: Literal["missed", "false alarm"]
    margin: float
    id: str
    prompt: PromptText
    correct: bool | None
    steps: tuple[ShownStep, ...]
    first_wrong_step: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDiagnostics:
    """What else step rewards follow, and where they fail.

    Attributes:
        position: Rank correlation of a step's reward with its place in the response.
        characters: Linear correlation of a step's reward with its length; NaN where neither varies, or
            where the scored text was rewritten.
        failures: The worst ones of each kind, one a problem.
    """

    position: float
    characters: float
    failures: tuple[StepFailure, ...]


def diagnose_steps(
    rollouts: Sequence[Rollout], columns: ScoreColumns, steps: LabelledSteps
) -> StepDiagnostics:
    """Correlations and failures of step rewards."""
    by_id = {rollout.id: rollout for rollout in rollouts}
    places = {identifier: row for row, identifier in enumerate(columns.ids)}
    failures = []
    for kind, margin, index in (*_worst(steps, "missed"), *_worst(steps, "false alarm")):
        rollout, row = by_id[steps.ids[index]], places[steps.ids[index]]
        failures.append(
            StepFailure(
                kind=kind,
                margin=margin,
                id=rollout.id,
                prompt=rollout.prompt,
                correct=rollout.correct,
                steps=shown_steps(rollout, columns, row),
                first_wrong_step=_scored_step(rollout, columns, row, steps, index),
            )
        )
    labelled = steps.labelled
    return StepDiagnostics(
        position=spearman(steps.rewards[labelled], steps.position_of_step[labelled]),
        characters=_length_correlation(columns),
        failures=tuple(failures),
    )


def _worst(
    steps: LabelledSteps, kind: Literal["missed", "false alarm"]
) -> Iterator[tuple[Literal["missed", "false alarm"], float, int]]:
    spread = float(steps.rewards.std()) or 1.0
    mean = float(steps.rewards.mean())
    margins = np.zeros(steps.num_responses)
    for index, (start, stop, error) in enumerate(
        zip(steps.offsets[:-1], steps.offsets[1:], steps.first_wrong, strict=True)
    ):
        if kind == "missed" and error > 0:
            margins[index] = steps.rewards[start + error] - steps.rewards[start : start + error].min()
        elif kind == "false alarm" and error < 0:
            margins[index] = mean - steps.rewards[start:stop].min()
    shown: set[int] = set()
    for index in np.argsort(-margins, kind="stable"):
        if len(shown) == _SHOWN or margins[index] <= 0.0:
            return
        # One response of a problem says it for the others.
        if int(steps.clusters[index]) not in shown:
            shown.add(int(steps.clusters[index]))
            yield kind, float(margins[index]) / spread, int(index)


def _scored_step(
    rollout: Rollout, columns: ScoreColumns, row: int, steps: LabelledSteps, index: int
) -> int | None:
    """The scored step in which the first wrong labelled one begins; a labelled one may hold several."""
    error = int(steps.first_wrong[index])
    if error < 0 or not rollout.step_labels:
        return None
    begins = 0 if error == 0 else rollout.step_labels[error - 1].end
    if columns.is_rewritten(row):
        return error
    return int(np.searchsorted(columns.step_ends[columns.steps_of(row)], begins, side="right"))


def _length_correlation(columns: ScoreColumns) -> float:
    if columns.rewritten:
        return float("nan")
    starts = np.concatenate([[0], columns.step_ends[:-1]])
    starts[columns.step_offsets[:-1][np.diff(columns.step_offsets) > 0]] = 0
    return pearson(columns.step_rewards, columns.step_ends - starts)
