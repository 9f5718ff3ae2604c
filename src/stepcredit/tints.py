"""Rewards as colours, and the steps of a response coloured by them for a notebook."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

from stepcredit.wording import quantity

# Shares of these over any page, light or dark, leave its own text readable.
_COLOURS = {"high": "33, 113, 199", "low": "224, 112, 16"}
_STRONGEST = 0.5
_TABLE = "border-collapse: collapse; margin: .4em 0; text-align: left; font-variant-numeric: tabular-nums"
_TEXT = (
    "padding: .2em .7em; text-align: left; white-space: pre-wrap; overflow-wrap: anywhere; "
    "font-family: ui-monospace, Menlo, Consolas, monospace; unicode-bidi: isolate"
)
_NUMBER = "padding: .2em .7em; text-align: right; white-space: nowrap"
_CAPTION = "caption-side: bottom; text-align: left; opacity: .75; font-size: .9em; padding-top: .3em"


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


class RewardedStep(Protocol):
    """A step as it is shown."""

    @property
    def text(self) -> str:
        """What it says."""

    @property
    def reward(self) -> float:
        """What it is worth."""


class RewardedSteps(Protocol):
    """A scored response as it is shown."""

    @property
    def steps(self) -> Sequence[RewardedStep]:
        """Its steps."""

    @property
    def reward(self) -> float:
        """What it is worth as a whole."""

    @property
    def num_tokens(self) -> int:
        """Number of scored tokens."""

    @property
    def scorer(self) -> str:
        """What scored it."""


class ShownSteps:
    """What makes a scored response show its steps in a notebook."""

    __slots__ = ()

    def _repr_html_(self: RewardedSteps) -> str:
        """A table of the steps coloured by their rewards, blue above zero and orange below.

        It holds no script and names no other file. Colours are translucent, so that it can be read on a
        light page and on a dark one.
        """
        rewards = [step.reward for step in self.steps]
        comparable = [reward for reward in rewards if not math.isnan(reward)]
        lowest = min(comparable) if len(set(comparable)) > 1 else None
        scale = scale_for(rewards)
        rows = "".join(
            _row(number, step.text, step.reward, scale.tint(step.reward), is_lowest=step.reward == lowest)
            for number, step in enumerate(self.steps, 1)
        )
        caption = escape(f"reward {self.reward:+.3f}, {quantity(self.num_tokens, 'token')}, {self.scorer}")
        return f'<table style="{_TABLE}"><caption style="{_CAPTION}">{caption}</caption>{rows}</table>'


def _row(number: int, text: str, reward: float, tint: Tint, *, is_lowest: bool) -> str:
    colour = _COLOURS.get(tint.side, "0, 0, 0")
    background = f"rgba({colour}, {_STRONGEST * tint.strength / 100:.2f})"
    shown = escape(text.rstrip("\r\n")) or "<i>empty step</i>"
    return (
        f'<tr style="background: {background}"><td style="{_NUMBER}">{number}</td>'
        f'<td style="{_TEXT}">{shown}</td>'
        f'<td style="{_NUMBER}">{reward:+.3f}{" ▼ lowest" if is_lowest else ""}</td></tr>'
    )
