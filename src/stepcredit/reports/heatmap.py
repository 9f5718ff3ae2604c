"""The step heat map: each step of a response coloured by its reward, with the truly wrong one marked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stepcredit.reports.examples import Example, ExampleToken, join_examples
from stepcredit.reports.page import render_page
from stepcredit.types import ResponseScore, Rollout

_SHORT_STEP = 28
"""Responses whose steps all have at most this many characters are shown in columns."""

_VISIBLE = str.maketrans({"\n": "↵", "\r": "␍", "\t": "⇥"})


@dataclass(frozen=True, slots=True)
class Tint:
    """A reward as a colour.

    Attributes:
        side: ``high`` (blue, above zero) or ``low`` (orange, below), empty at zero and for NaN.
        strength: Share of the full colour, 0 to 100.
    """

    side: str
    strength: int


@dataclass(frozen=True, slots=True)
class ColourScale:
    """A diverging scale, symmetric about zero; beyond ``limit`` the colour stays the same.

    Attributes:
        limit: Reward (in absolute value) that gets the full colour.
    """

    limit: float

    def tint(self, reward: float) -> Tint:
        """The colour of a reward."""
        if math.isnan(reward) or reward == 0:
            return Tint("", 0)
        strength = 100 if math.isinf(reward) else round(100 * min(1.0, abs(reward) / self.limit))
        return Tint("high" if reward > 0 else "low", strength)

    @property
    def ramp(self) -> list[Tint]:
        """Sample colours from the lowest to the highest, for a key."""
        return [self.tint(self.limit * part / 4) for part in range(-4, 5)]


def scale_for(rewards: Iterable[float]) -> ColourScale:
    """A scale whose limit is the 95th percentile of absolute rewards, so that one outlier fades nothing."""
    sizes = sorted(abs(reward) for reward in rewards if math.isfinite(reward) and reward != 0)
    return ColourScale(sizes[math.ceil(0.95 * len(sizes)) - 1] if sizes else 1.0)


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
            example,
            _steps(example, scale),
            tuple(_token(token, token_scale) for token in example.tokens),
        )
        for example in examples
    )
    return HeatMap(views, scale, token_scale.limit if token_rewards else None, longest <= _SHORT_STEP)


def render_heatmap(
    rollouts: Sequence[Rollout],
    scores: Sequence[ResponseScore],
    *,
    first_wrong_steps: Mapping[str, int] | None = None,
    title: str = "Step rewards",
) -> str:
    """A page that shows scored responses step by step, e.g. for ``stepcredit score --html``.

    Args:
        rollouts: Hold the prompts, answers and grades; matched to the scores by id.
        scores: What to show, in this order. Those with token rewards get a token view.
        first_wrong_steps: Rollout id to the index of its truly first wrong step; where it is not named,
            step labels of the rollout are used, if there are any.
        title: Of the page.

    Returns:
        A complete HTML document.

    Raises:
        DataError: A score has no rollout.
    """
    examples = join_examples(rollouts, scores, first_wrong_steps=first_wrong_steps)
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
