"""A scored response for the terminal: each step with its reward, coloured by it."""

from __future__ import annotations

import io

from stepcredit.tints import ColourScale, scale_for
from stepcredit.types import ResponseScore

# A response must not steer the terminal: control characters become their pictures.
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\r\n"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)

_HIGH, _LOW, _PAPER = (33, 102, 172), (204, 102, 0), (235, 235, 235)


def render_terminal(score: ResponseScore, *, colour: bool) -> str:
    """One line a step: its reward, the value up to it, and its text.

    Args:
        colour: Whether to colour steps, blue above zero and orange below, deeper the further away.

    Returns:
        Text without a final line end; the lowest of several steps is marked.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    scale = scale_for(step.reward for step in score.steps)
    differ = len({step.reward for step in score.steps}) > 1
    lowest = min(score.steps, key=lambda step: step.reward) if differ else None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step", justify="right")
    table.add_column("reward", justify="right")
    table.add_column("value", justify="right")
    table.add_column("text", overflow="fold")
    for step in score.steps:
        mark = "  ← lowest" if step is lowest else ""
        text = Text(step.text.translate(_PICTURES).strip() or "(no text)", style=_style(step.reward, scale))
        table.add_row(
            str(step.index + 1), f"{step.reward:+.4f}", f"{step.value:+.4f}", text + Text(mark, style="bold")
        )
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=colour, color_system="truecolor" if colour else None, force_jupyter=False
    )
    console.print(table)
    aggregates = "  ".join(f"{name} {value:+.4f}" for name, value in score.aggregates.items())
    console.print(
        Text(f"\nreward {score.reward:+.4f}   {aggregates}\n{score.num_tokens} tokens, {score.scorer}")
    )
    return stream.getvalue().rstrip("\n")


def _style(reward: float, scale: ColourScale) -> str:
    tint = scale.tint(reward)
    if not tint.side:
        return ""
    goal = _HIGH if tint.side == "high" else _LOW
    share = 0.25 + 0.75 * tint.strength / 100
    red, green, blue = (round(p + (g - p) * share) for p, g in zip(_PAPER, goal, strict=True))
    ink = "white" if share > 0.6 else "black"
    return f"{ink} on rgb({red},{green},{blue})"
