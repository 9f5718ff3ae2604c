"""Step labels from an outcome verifier's confidence (AutoPSV, Lu et al. 2024, arXiv:2405.16802).

A verifier trained on outcomes gives every prefix a probability of ending right. A step at which that
probability falls by more than a threshold, relative to what it was, is wrong, and so is all that follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from stepcredit.encoding import EncodedSteps, EncodingError
from stepcredit.errors import CheckpointError, DataError
from stepcredit.scorers.step_models import StepModelScorer
from stepcredit.types import Rollout, StepLabel
from stepcredit.wording import agree, every

FIELD = "autopsv"
"""Extra field of labelled rollouts: the verifier's confidences and the threshold."""

PUBLISHED_THRESHOLD = -0.5
_NO_CONFIDENCE = 1e-5
"""Below this the authors' code takes a response as lost; a quotient would say nothing there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidences:
    """What a verifier says of one response.

    Attributes:
        step_ends: Character offset at which each step ends.
        values: Probability that the response ends right: after its first token (which says nothing yet
            of the first step's worth, so it stands for the confidence before it), then after each step.
        num_tokens: Tokens that the verifier read.
    """

    step_ends: tuple[int, ...]
    values: Float[np.ndarray, " steps_and_one"]
    num_tokens: int


def read_confidences(
    scorer: StepModelScorer, rollouts: Sequence[Rollout]
) -> Iterator[Confidences | EncodingError]:
    """The verifier's confidences for each rollout, or why it cannot be encoded.

    Args:
        scorer: Of a value head trained on outcomes at every token.
        rollouts: Read together; identical responses to one prompt are computed once.
    """
    results: list[EncodedSteps | EncodingError] = []
    for rollout in rollouts:
        if rollout.turns is not None:
            results.append(_of_turns(rollout))
            continue
        try:
            results.append(scorer.encoding.encode(rollout))
        except EncodingError as error:
            results.append(error)
    distinct = {
        result.encoded: replace(
            result.encoded, step_ends=(1, *(max(end, 1) for end in result.encoded.step_ends))
        )
        for result in results
        if isinstance(result, EncodedSteps)
    }
    values = dict(zip(distinct, scorer.reader.of(list(distinct.values())), strict=True))
    for result in results:
        if isinstance(result, EncodingError):
            yield result
        else:
            yield Confidences(
                step_ends=tuple(step.end for step in result.steps),
                values=values[result.encoded],
                num_tokens=len(result.encoded.token_ids),
            )


def _of_turns(rollout: Rollout) -> EncodingError:
    """Rows with several turns hold no step labels: nothing says in which text they would end."""
    return EncodingError(
        "not-encodable", "step labels belong to a response that is one text, not to turns", where=rollout.id
    )


def relative_changes(values: Float[np.ndarray, " steps_and_one"]) -> Float[np.ndarray, " steps"]:
    """``(f_t - f_{t-1}) / f_{t-1}``: how each step changes the confidence, at least -1.

    From a confidence of next to nothing on the change is -1: the response was lost before.
    """
    values = np.asarray(values, np.float64)
    before = values[:-1]
    lost = before < _NO_CONFIDENCE
    return np.where(lost, -1.0, np.diff(values) / np.where(lost, 1.0, before))


def step_labels(changes: Float[np.ndarray, " steps"], threshold: float) -> Float[np.ndarray, " steps"]:
    """1 up to the first step whose change lies below the threshold, 0 from it on."""
    return (np.minimum.accumulate(changes) >= threshold).astype(np.float64)


def label_rollout(rollout: Rollout, confidences: Confidences, threshold: float) -> Rollout:
    """The rollout with step labels, and the confidences in its extras."""
    labels = step_labels(relative_changes(confidences.values), threshold)
    content = {
        "confidences": confidences.values.tolist(),
        "threshold": threshold,
        "num_tokens": confidences.num_tokens,
    }
    return replace(
        rollout,
        step_labels=tuple(
            StepLabel(end, float(label)) for end, label in zip(confidences.step_ends, labels, strict=True)
        ),
        extras={**rollout.extras, FIELD: content},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdChoice:
    """A threshold and how well it does on the data that it was chosen on.

    Attributes:
        threshold: In [-1, 0].
        balanced_accuracy: Mean of the shares of right and of wrong items that it classifies correctly.
    """

    threshold: float
    balanced_accuracy: float


def choose_by_outcomes(changes: Sequence[NDArray[np.float64]], correct: Sequence[bool]) -> ThresholdChoice:
    """The threshold whose labels of all steps agree best with the outcomes of their responses.

    Every step counts, not the response alone: at the last step any verifier's confidence falls to nothing
    where the answer is wrong, so almost any threshold separates right from wrong responses, the one that
    catches errors where they are made no better than others.
    """
    targets = [[float(right)] * len(response) for response, right in zip(changes, correct, strict=True)]
    return choose_by_step_labels(changes, targets)


def choose_by_step_labels(
    changes: Sequence[NDArray[np.float64]], labels: Sequence[Sequence[float]]
) -> ThresholdChoice:
    """The threshold whose step labels agree best with given ones (right is above 0.5)."""
    lowest = np.concatenate([np.minimum.accumulate(response) for response in changes])
    return _choose(lowest, np.concatenate([np.asarray(response) > 0.5 for response in labels]))


def _choose(lowest: Float[np.ndarray, " items"], right: Bool[np.ndarray, " items"]) -> ThresholdChoice:
    """The most balanced accuracy that any threshold reaches; of equals the one nearest to the published."""
    if right.all() or not right.any():
        raise DataError(
            f"{every(len(right), 'development item')} {agree(len(right), 'is', 'are')} "
            f"{'right' if right.all() else 'wrong'}, so no threshold can be chosen",
            where="--dev",
            hint="use more development problems, or pass --threshold",
        )
    values = np.unique(np.concatenate([[-1.0, 0.0], np.clip(lowest, -1.0, 0.0)]))
    candidates = np.concatenate([values, (values[1:] + values[:-1]) / 2])
    kept = 1.0 - np.searchsorted(np.sort(lowest[right]), candidates) / right.sum()
    caught = np.searchsorted(np.sort(lowest[~right]), candidates) / (~right).sum()
    accuracy = (kept + caught) / 2
    best = candidates[accuracy >= accuracy.max() - 1e-12]
    return ThresholdChoice(
        threshold=float(best[np.argmin(np.abs(best - PUBLISHED_THRESHOLD))]),
        balanced_accuracy=float(accuracy.max()),
    )


def as_verifier(scorer: object, where: str) -> StepModelScorer:
    """The scorer, if it is one of a value head.

    Raises:
        CheckpointError: It is of another kind.
    """
    if isinstance(scorer, StepModelScorer) and scorer.family == "value-head":
        return scorer
    raise CheckpointError("is not a value-head model", where=where, hint="train one with --family value-head")
