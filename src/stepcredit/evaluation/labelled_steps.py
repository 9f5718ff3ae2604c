"""Step labels joined with step scores, whatever way the scored text was cut."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import DataError
from stepcredit.evaluation.score_columns import ScoreColumns
from stepcredit.stats import sigmoid
from stepcredit.types import Rollout

StepQuantity = Literal["reward", "value"]
"""``reward``: each step by itself. ``value``: the prefix up to its end."""

WRONG_BELOW = 0.5
"""A step with a label below this is wrong."""


_UNLABELLED = "responses without step labels"
_UNSCORED = "responses without a score"
_MISALIGNED = "responses whose scored steps do not end where the labelled ones do"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSteps:
    """Labelled and scored steps of many responses, one response after another.

    Attributes:
        problem_ids: Prompt ids; intervals draw problems again.
        clusters: Index in ``problem_ids`` of each response's problem.
        offsets: Response i owns the steps ``offsets[i]:offsets[i + 1]``.
        labels: In [0, 1]; below :data:`WRONG_BELOW` is wrong. NaN where nothing is said, as of the steps
            after a first error.
        values: Values of the prefixes that end with each step.
        first_wrong: Index within its response of the first wrong step; -1 where none is.
        excluded: Responses left out, by reason.
        logits: Which quantities are read as logits, not as probabilities, of a step being right; ``None``
            decides by the scores that are here. Parts of one scorer's scores need one decision.
    """

    ids: tuple[str, ...]
    problem_ids: tuple[str, ...]
    clusters: NDArray[np.int64]
    offsets: NDArray[np.int64]
    labels: NDArray[np.float64]
    rewards: NDArray[np.float64]
    values: NDArray[np.float64]
    first_wrong: NDArray[np.int64]
    excluded: Mapping[str, int] = field(default_factory=dict)
    logits: frozenset[StepQuantity] | None = None

    @property
    def num_responses(self) -> int:
        """Number of responses."""
        return len(self.ids)

    @property
    def num_steps(self) -> NDArray[np.int64]:
        """Steps of each response."""
        return np.diff(self.offsets)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which steps have a label."""
        return ~np.isnan(self.labels)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Which steps are labelled wrong."""
        return np.asarray(self.labels < WRONG_BELOW)

    @property
    def cluster_of_step(self) -> NDArray[np.int64]:
        """Problem of each step."""
        return np.asarray(self.clusters[self.response_of_step])

    @property
    def num_clusters(self) -> int:
        """Number of problems."""
        return len(self.problem_ids)

    @property
    def response_of_step(self) -> NDArray[np.int64]:
        """Which response each step belongs to."""
        return np.repeat(np.arange(self.num_responses), self.num_steps)

    @property
    def position_of_step(self) -> NDArray[np.int64]:
        """Index of each step within its response."""
        return np.asarray(np.arange(len(self.labels)) - self.offsets[self.response_of_step])

    def select(self, responses: NDArray[np.bool_]) -> LabelledSteps:
        """The responses where ``responses`` is true."""
        kept = np.flatnonzero(responses)
        steps = responses[self.response_of_step]
        used, clusters = np.unique(self.clusters[kept], return_inverse=True)
        return LabelledSteps(
            ids=tuple(self.ids[index] for index in kept),
            problem_ids=tuple(self.problem_ids[index] for index in used),
            clusters=clusters,
            offsets=np.concatenate([[0], np.cumsum(self.num_steps[kept])]),
            labels=self.labels[steps],
            rewards=self.rewards[steps],
            values=self.values[steps],
            first_wrong=self.first_wrong[kept],
            logits=self.logits,
        )

    @staticmethod
    def merge(parts: Sequence[LabelledSteps]) -> LabelledSteps:
        """Several of one scorer as one; responses of the same prompt are of one problem in all parts."""
        names: dict[str, int] = {}
        clusters = [
            names.setdefault(part.problem_ids[cluster], len(names))
            for part in parts
            for cluster in part.clusters
        ]
        sizes = np.concatenate([part.num_steps for part in parts])
        return LabelledSteps(
            ids=tuple(name for part in parts for name in part.ids),
            problem_ids=tuple(names),
            clusters=np.array(clusters),
            offsets=np.concatenate([[0], np.cumsum(sizes)]),
            labels=np.concatenate([part.labels for part in parts]),
            rewards=np.concatenate([part.rewards for part in parts]),
            values=np.concatenate([part.values for part in parts]),
            first_wrong=np.concatenate([part.first_wrong for part in parts]),
            logits=parts[0].logits,
        )

    def scores(self, quantity: StepQuantity) -> NDArray[np.float64]:
        """Rewards or values."""
        return self.rewards if quantity == "reward" else self.values

    def probabilities(self, quantity: StepQuantity) -> NDArray[np.float64]:
        """Rewards or values as probabilities of being right."""
        scores = self.scores(quantity)
        if self.logits is None:
            return step_probabilities(scores)
        return sigmoid(scores) if quantity in self.logits else scores


def are_logits(scores: NDArray[np.float64]) -> bool:
    """Whether scores are no probabilities: some lie outside [0, 1]."""
    return bool(scores.min(initial=0.0) < 0.0 or scores.max(initial=1.0) > 1.0)


def step_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores as probabilities of being right: as they are if all lie in [0, 1], else their sigmoid."""
    return sigmoid(scores) if are_logits(scores) else scores


def on_one_scale(parts: Sequence[LabelledSteps]) -> list[LabelledSteps]:
    """All of one scorer's steps, with one decision whether its scores are logits or probabilities."""
    both: tuple[StepQuantity, ...] = ("reward", "value")
    logits = frozenset(
        quantity for quantity in both if are_logits(np.concatenate([part.scores(quantity) for part in parts]))
    )
    return [replace(part, logits=logits) for part in parts]


def join_labels(
    rollouts: Iterable[Rollout], columns: ScoreColumns, *, source: str = "rollouts"
) -> LabelledSteps:
    """Join the step labels of rollouts with the scores of their steps.

    A labelled step may hold several scored ones: where values add up (implicit scorers) its reward is the
    sum, elsewhere the lowest. Its end must be the end of a scored step, up to white space; responses where
    it is not, without labels or without a score are left out and counted.

    Raises:
        DataError: No response is left, or the steps of a score are not of its response.
    """
    places = {identifier: row for row, identifier in enumerate(columns.ids)}
    additive = _is_cumulative(columns)
    excluded: Counter[str] = Counter()
    ids: list[str] = []
    clusters: dict[str, int] = {}
    cluster_of: list[int] = []
    labels: list[float] = []
    rewards: list[float] = []
    values: list[float] = []
    offsets, first_wrong = [0], []

    for rollout in rollouts:
        if not rollout.step_labels:
            excluded.update([_UNLABELLED])
            continue
        row = places.get(rollout.id)
        if row is None:
            excluded.update([_UNSCORED])
            continue
        columns.check_text(row, rollout)
        pieces = _align(rollout, columns, row)
        if pieces is None:
            excluded.update([_MISALIGNED])
            continue
        for piece in pieces:
            rewards.append(_reward(columns, piece, additive=additive))
            values.append(float(columns.step_values[piece.stop - 1]))
        given = [label.label for label in rollout.step_labels]
        given += [math.nan] * (len(pieces) - len(given))
        labels += given
        ids.append(rollout.id)
        cluster_of.append(clusters.setdefault(rollout.prompt_id, len(clusters)))
        offsets.append(len(labels))
        first_wrong.append(next((i for i, label in enumerate(given) if label < WRONG_BELOW), -1))
    if not ids:
        raise _nothing_left(excluded, source)
    return LabelledSteps(
        ids=tuple(ids),
        problem_ids=tuple(clusters),
        clusters=np.array(cluster_of),
        offsets=np.array(offsets),
        labels=np.array(labels),
        rewards=np.array(rewards),
        values=np.array(values),
        first_wrong=np.array(first_wrong),
        excluded=dict(excluded),
    )


def _reward(columns: ScoreColumns, piece: slice, *, additive: bool) -> float:
    """Of a labelled step, which mostly is one scored step."""
    if piece.stop - piece.start == 1:
        return float(columns.step_rewards[piece.start])
    part = columns.step_rewards[piece]
    return float(part.sum() if additive else part.min())


def _nothing_left(excluded: Mapping[str, int], source: str) -> DataError:
    reasons = "; ".join(f"{reason}: {count:,}" for reason, count in excluded.items())
    hints = {
        _UNLABELLED: "pass data with step labels",
        _UNSCORED: "pass the scores of these responses",
        _MISALIGNED: "score this file with the step rule of its labels (stepcredit score --steps)",
    }
    return DataError(
        f"no labelled step can be evaluated; {reasons or 'there are no rollouts'}",
        where=source,
        hint=hints[max(excluded, key=lambda reason: excluded[reason])] if excluded else None,
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
    """For each labelled step the scored steps that make it up, then one by one those that no label reaches.

    ``None`` where labelled and scored steps end in different places.
    """
    assert rollout.step_labels is not None
    steps = columns.steps_of(row)
    start, stop = steps.start, steps.stop
    if columns.is_rewritten(row):
        # Offsets refer to the rewritten text: steps can only be counted off.
        if stop - start < len(rollout.step_labels):
            return None
        return [slice(step, step + 1) for step in range(start, stop)]
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
    return pieces + [slice(step, step + 1) for step in range(start + done, stop)]


def _text_end(text: str, end: int) -> int:
    """Where the text before ``end`` ends without trailing white space."""
    if 0 < end <= len(text) and not text[end - 1].isspace():
        return end
    return len(text[:end].rstrip())
