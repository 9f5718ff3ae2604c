"""Worked examples as plain data: a response in steps, each with its reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stepcredit.conversations import content_text
from stepcredit.data import read_rollouts, read_scores
from stepcredit.errors import DataError
from stepcredit.types import PromptText, ResponseScore, Rollout
from stepcredit.wording import agree, quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleStep:
    """A step and its reward.

    Attributes:
        text: The step's text, separator included.
        value: Implicit scorers: cumulative reward up to its end.
    """

    text: str
    reward: float
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleToken:
    """A scored token and its reward."""

    text: str
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One scored response, ready to be shown.

    Attributes:
        prompt: The problem; of a conversation, its turns with their roles.
        steps: They tile the scored text.
        first_wrong_step: Index from 0 of the step that is truly the first wrong one; ``None`` if there
            is none or if it is not known.
        tokens: Token view, if token rewards were kept.
        note: Why the example is shown, in one line.
    """

    prompt: str
    steps: tuple[ExampleStep, ...]
    id: str | None = None
    policy: str | None = None
    answer: str | None = None
    prediction: str | None = None
    correct: bool | None = None
    reward: float | None = None
    first_wrong_step: int | None = None
    tokens: tuple[ExampleToken, ...] = ()
    note: str | None = None


def example_of(rollout: Rollout, score: ResponseScore) -> Example:
    """Join a rollout and its score; step labels of the rollout say which step is the first wrong one.

    Raises:
        DataError: They belong to different responses, or an offset lies outside the scored text.
    """
    if rollout.id != score.id:
        raise DataError(f"score {score.id!r} does not belong to rollout {rollout.id!r}")
    return Example(
        prompt=prompt_text(rollout.prompt),
        steps=tuple(
            ExampleStep(text=step.text, reward=step.reward, value=step.value) for step in score.steps
        ),
        id=rollout.id,
        policy=rollout.policy,
        answer=rollout.answer,
        prediction=rollout.prediction,
        correct=rollout.correct,
        reward=score.reward,
        first_wrong_step=_first_labelled_wrong(rollout, score),
        tokens=_tokens(rollout, score),
    )


def join_examples(rollouts: Sequence[Rollout], scores: Sequence[ResponseScore]) -> tuple[Example, ...]:
    """Join rollouts, of which there may be more than were scored, and scores by id, in the scores' order.

    Raises:
        DataError: A score has no rollout.
    """
    by_id = {rollout.id: rollout for rollout in rollouts}
    missing = [score.id for score in scores if score.id not in by_id]
    if missing:
        raise DataError(
            f"{quantity(len(missing), 'score')} {agree(len(missing), 'has', 'have')} no rollout"
            f"{agree(len(missing), ':', ', the first is')} {missing[0]!r}",
            hint="pass the rollouts that were scored",
        )
    return tuple(example_of(by_id[score.id], score) for score in scores)


def first_of_each_problem(
    rollouts: Path, scores: Path, *, num_wrong: int, num_right: int
) -> tuple[Example, ...]:
    """Wrong responses, then right ones, of different problems, in the order of the file.

    Nothing is chosen by how well the scorer did: the first response of each kind is taken.

    Args:
        num_wrong: At most so many wrong responses.
        num_right: At most so many right ones.
    """
    wrong: list[Rollout] = []
    right: list[Rollout] = []
    seen: set[str] = set()
    for rollout in read_rollouts(rollouts):
        kind, limit = (right, num_right) if rollout.correct else (wrong, num_wrong)
        if rollout.prompt_id not in seen and len(kind) < limit:
            seen.add(rollout.prompt_id)
            kind.append(rollout)
        if len(wrong) == num_wrong and len(right) == num_right:
            break
    missing = {rollout.id for rollout in (*wrong, *right)}
    by_id = {}
    for score in read_scores(scores):
        if score.id in missing:
            missing.remove(score.id)
            by_id[score.id] = score
        if not missing:
            break
    return tuple(example_of(rollout, by_id[rollout.id]) for rollout in (*wrong, *right))


def prompt_text(prompt: PromptText) -> str:
    """The prompt as text; a conversation of several turns names each turn's role."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return content_text(prompt[0])
    return "\n\n".join(f"{message['role']}: {content_text(message)}" for message in prompt)


def _first_labelled_wrong(rollout: Rollout, score: ResponseScore) -> int | None:
    """The step that holds the last character of the first label under one half."""
    ends = [label.end for label in rollout.step_labels or () if label.label < 0.5]
    if not ends or score.scored_text is not None:
        return None  # labels refer to the response; a rewritten text has other offsets
    return next((step.index for step in score.steps if step.start < ends[0] <= step.end), None)


def _tokens(rollout: Rollout, score: ResponseScore) -> tuple[ExampleToken, ...]:
    if score.token_rewards is None or score.token_ends is None:
        return ()
    text = rollout.response if score.scored_text is None else score.scored_text
    if len(score.token_rewards) != len(score.token_ends):
        raise DataError(
            f"score {score.id!r} has {len(score.token_rewards)} token rewards "
            f"and {len(score.token_ends)} token ends"
        )
    starts = (score.steps[0].start if score.steps else 0, *score.token_ends[:-1])
    if any(not start <= end <= len(text) for start, end in zip(starts, score.token_ends, strict=True)):
        raise DataError(f"token ends of score {score.id!r} are not rising offsets in its text")
    return tuple(
        ExampleToken(text=text[start:end], reward=reward)
        for start, end, reward in zip(starts, score.token_ends, score.token_rewards, strict=True)
    )
