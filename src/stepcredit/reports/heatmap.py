"""The step heat map: each step of a response coloured by its reward, with the truly wrong one marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stepcredit.reports.examples import Example, ExampleToken, join_examples
from stepcredit.reports.page import render_page
from stepcredit.tints import ColourScale, Tint, scale_for
from stepcredit.types import ResponseScore, Rollout

_SHORT_STEP = 28
"""Responses whose steps all have at most this many characters are shown in columns."""

_VISIBLE = str.maketrans({"\n": "↵", "\r": "␍", "\t": "⇥"})


@dataclass(frozen=True, slots=True)
class StepView:
    """A step as the template shows it."""

    number: int
    text: str
    reward: float
    value: float | None
    tint: Tint
    lowest: bool
    first_wrong: bool


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token as the template shows it; spaces and line ends are visible, lines break after line ends."""

    text: str
    reward: float
    tint: Tint
    ends_line: bool


@dataclass(frozen=True, slots=True)
class ExampleView:
    """A worked example as the template shows it."""

    example: Example
    steps: tuple[StepView, ...]
    tokens: tuple[TokenView, ...]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Examples with their colours; what the template ``heatmap_parts.html`` draws.

    Attributes:
        views: The examples, in order.
        scale: Of step rewards, one for all examples.
        token_limit: Limit of the token rewards' own scale; ``None`` without token rewards.
        short: Whether all steps are short enough to show responses side by side.
    """

    views: tuple[ExampleView, ...]
    scale: ColourScale
    token_limit: float | None
    short: bool


def heat_map(examples: Sequence[Example]) -> HeatMap:
    """Choose colours for worked examples; one scale for all, so that colours can be compared."""
    scale = scale_for(step.reward for example in examples for step in example.steps)
    token_rewards = [token.reward for example in examples for token in example.tokens]
    token_scale = scale_for(token_rewards)
    longest = max((len(step.text) for example in examples for step in example.steps), default=0)
    views = tuple(
        ExampleView(
            example, _steps(example, scale), tuple(_token(token, token_scale) for token in example.tokens)
        )
        for example in examples
    )
    return HeatMap(views, scale, token_scale.limit if token_rewards else None, longest <= _SHORT_STEP)


def render_heatmap(
    rollouts: Sequence[Rollout], scores: Sequence[ResponseScore], *, title: str = "Step rewards"
) -> str:
    """A page that shows scored responses step by step, e.g. for ``stepcredit score --html``.

    Args:
        rollouts: Hold the prompts, answers and grades; matched to the scores by id.
        scores: What to show, in this order. Those with token rewards get a token view.

    Returns:
        A complete HTML document.

    Raises:
        DataError: A score has no rollout.
    """
    examples = join_examples(rollouts, scores)
    scorers = sorted({score.scorer for score in scores})
    return render_page(
        "heatmap.html", title=title, kind="step rewards", heat_map=heat_map(examples), scorers=scorers
    )


def _steps(example: Example, scale: ColourScale) -> tuple[StepView, ...]:
    rewards = [step.reward for step in example.steps]
    comparable = [reward for reward in rewards if not math.isnan(reward)]
    lowest = rewards.index(min(comparable)) if comparable and len(rewards) > 1 else None
    return tuple(
        StepView(
            number=index + 1,
            text=step.text.rstrip("\r\n"),
            reward=step.reward,
            value=step.value,
            tint=scale.tint(step.reward),
            lowest=index == lowest,
            first_wrong=index == example.first_wrong_step,
        )
        for index, step in enumerate(example.steps)
    )


def _token(token: ExampleToken, scale: ColourScale) -> TokenView:
    shown = token.text.translate(_VISIBLE)
    if shown.strip(" ") == "":
        shown = "␣" * len(shown) or "∎"
    return TokenView(shown, token.reward, scale.tint(token.reward), "\n" in token.text)
