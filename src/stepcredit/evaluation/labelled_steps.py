"""Step labels joined with step scores, whatever way the scored text was cut."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import DataError
from stepcredit.evaluation.score_columns import ScoreColumns
from stepcredit.types import Rollout

StepQuantity = Literal["reward", "value"]
"""``reward``: each step by itself. ``value``: the prefix up to its end."""

WRONG_BELOW = 0.5
"""A step with a label below this is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSteps:
    """Labelled and scored steps of many responses, one response after another.

    Attributes:
        ids: Rollout ids.
        clusters: Number of each response's problem, from 0; what intervals draw again.
        offsets: Response i owns the steps ``offsets[i]:offsets[i + 1]``.
        labels: In [0, 1]; below :data:`WRONG_BELOW` is wrong.
        rewards: Step rewards.
        values: Values of the prefixes that end with each step.
        first_wrong: Index within its response of the first wrong step; -1 where none is.
        excluded: Responses left out, by reason.
    """

    ids: tuple[str, ...]
    clusters: NDArray[np.int64]
    offsets: NDArray[np.int64]
    labels: NDArray[np.float64]
    rewards: NDArray[np.float64]
    values: NDArray[np.float64]
    first_wrong: NDArray[np.int64]
    excluded: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_responses(self) -> int:
        """Number of responses."""
        return len(self.ids)

    @property
    def num_steps(self) -> NDArray[np.int64]:
        """Labelled steps of each response."""
        return np.diff(self.offsets)

    @property
    def response_of_step(self) -> NDArray[np.int64]:
        """Which response each step belongs to."""
        return np.repeat(np.arange(self.num_responses), self.num_steps)

    @property
    def position_of_step(self) -> NDArray[np.int64]:
        """Index of each step within its response."""
        return np.asarray(np.arange(len(self.labels)) - self.offsets[self.response_of_step])

    def scores(self, quantity: StepQuantity) -> NDArray[np.float64]:
        """Rewards or values."""
        return self.rewards if quantity == "reward" else self.values


def join_labels(
    rollouts: Iterable[Rollout], columns: ScoreColumns, *, source: str = "rollouts"
) -> LabelledSteps:
    """Join the step labels of rollouts with the scores of their steps.

    A labelled step may hold several scored ones: where values add up (implicit scorers) its reward is the
    sum, elsewhere the lowest. Its end must be the end of a scored step, up to white space; responses where
    it is not, without labels or without a score are left out and counted.

    Raises:
        DataError: No response is left.
    """
    places = {identifier: row for row, identifier in enumerate(columns.ids)}
    additive = _is_cumulative(columns)
    excluded: dict[str, int] = {}
    ids: list[str] = []
    clusters: dict[str, int] = {}
    cluster_of: list[int] = []
    labels: list[float] = []
    rewards: list[float] = []
    values: list[float] = []
    offsets, first_wrong = [0], []

    def leave_out(reason: str) -> None:
        excluded[reason] = excluded.get(reason, 0) + 1

    for rollout in rollouts:
        if not rollout.step_labels:
            leave_out("responses without step labels")
            continue
        row = places.get(rollout.id)
        if row is None:
            leave_out("responses without a score")
            continue
        pieces = _align(rollout, columns, row)
        if pieces is None:
            leave_out("responses whose scored steps do not end where the labelled ones do")
            continue
        for piece in pieces:
            part = columns.step_rewards[piece]
            rewards.append(float(part.sum() if additive else part.min()))
            values.append(float(columns.step_values[piece][-1]))
        given = [label.label for label in rollout.step_labels]
        labels += given
        ids.append(rollout.id)
        cluster_of.append(clusters.setdefault(rollout.prompt_id, len(clusters)))
        offsets.append(len(labels))
        first_wrong.append(next((i for i, label in enumerate(given) if label < WRONG_BELOW), -1))
    if not ids:
        why = "; ".join(f"{count} {reason}" for reason, count in excluded.items()) or "there are no rollouts"
        raise DataError(
            f"no labelled step can be evaluated: {why}",
            where=source,
            mend="score this file with the step rule that it is labelled by (stepcredit score --steps)",
        )
    return LabelledSteps(
        ids=tuple(ids),
        clusters=np.array(cluster_of),
        offsets=np.array(offsets),
        labels=np.array(labels),
        rewards=np.array(rewards),
        values=np.array(values),
        first_wrong=np.array(first_wrong),
        excluded=excluded,
    )


def _is_cumulative(columns: ScoreColumns) -> bool:
    """Whether each value is the sum of the rewards so far, as for implicit scorers."""
    totals = np.concatenate([[0.0], np.cumsum(columns.step_rewards)])
    starts = np.repeat(columns.step_offsets[:-1], np.diff(columns.step_offsets))
    sums = totals[1:] - totals[starts]
    scale = max(1.0, float(np.abs(totals).max(initial=0.0)))
    several = bool((np.diff(columns.step_offsets) > 1).any())
    return several and bool(np.allclose(sums, columns.step_values, rtol=1e-6, atol=1e-9 * scale))


def _align(rollout: Rollout, columns: ScoreColumns, row: int) -> list[slice] | None:
    """For each labelled step the scored steps that make it up; ``None`` where they do not."""
    assert rollout.step_labels is not None
    start, stop = int(columns.step_offsets[row]), int(columns.step_offsets[row + 1])
    if columns.rewritten:
        # Offsets refer to the rewritten text: only the number of steps can be compared.
        if stop - start != len(rollout.step_labels):
            return None
        return [slice(start + i, start + i + 1) for i in range(len(rollout.step_labels))]
    text = rollout.response
    scored_ends = [_text_end(text, int(end)) for end in columns.step_ends[start:stop]]
    pieces, done = [], 0
    for label in rollout.step_labels:
        end = _text_end(text, label.end)
        following = bisect_right(scored_ends, end)
        if following == done or scored_ends[following - 1] != end:
            return None
        pieces.append(slice(start + done, start + following))
        done = following
    return pieces


def _text_end(text: str, end: int) -> int:
    """Where the text before ``end`` ends without trailing white space."""
    return len(text[:end].rstrip())
