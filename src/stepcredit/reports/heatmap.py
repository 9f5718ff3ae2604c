"""The step heat map: each step of a response coloured by its reward, with the truly wrong one marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stepcredit.reports.examples import Example, join_examples
from stepcredit.reports.page import render_page
from stepcredit.tints import ColourScale, scale_for
from stepcredit.types import ResponseScore, Rollout

_SHORT_STEP = 28
"""Responses whose steps all have at most this many characters are shown in columns."""

_VISIBLE = str.maketrans({"\n": "↵", "\r": "␍", "\t": "⇥"})


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Examples with their colours; what the template ``heatmap_parts.html`` draws.

    Attributes:
        scale: Of step rewards, one for all examples, so that colours can be compared.
        token_scale: Of token rewards; ``None`` without them.
        short: Whether all steps are short enough to show responses side by side.
    """

    examples: Sequence[Example]
    scale: ColourScale
    token_scale: ColourScale | None
    short: bool

    @staticmethod
    def lowest(example: Example) -> int | None:
        """Index of the lowest of several steps."""
        rewards = [step.reward for step in example.steps]
        comparable = [reward for reward in rewards if not math.isnan(reward)]
        return rewards.index(min(comparable)) if comparable and len(rewards) > 1 else None

    @staticmethod
    def visible(text: str) -> str:
        """A token whose spaces and line ends can be seen."""
        shown = text.translate(_VISIBLE)
        return shown if shown.strip(" ") else "␣" * len(shown) or "∎"


def heat_map(examples: Sequence[Example]) -> HeatMap:
    """Choose colours for worked examples."""
    token_rewards = [token.reward for example in examples for token in example.tokens]
    return HeatMap(
        examples,
        scale_for(step.reward for example in examples for step in example.steps),
        scale_for(token_rewards) if token_rewards else None,
        short=all(len(step.text) <= _SHORT_STEP for example in examples for step in example.steps),
    )


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
