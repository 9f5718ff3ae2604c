"""Results as a notebook shows them: text and pictures, without scripts and other files."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

_TEXT = "white-space: pre-wrap; line-height: 1.35"
_PICTURE = "max-width: 100%; height: auto; margin: .3em"


def shown(text: str, plots: Iterable[str] = ()) -> str:
    """Text, then plots.

    Args:
        plots: SVG documents, drawn with ``render=standalone``. Each becomes an image of its own, so that its
            style applies to nothing else and follows the reader's preference for light or dark.
    """
    pictures = "".join(f'<img style="{_PICTURE}" src="{_address(plot)}" alt="plot">' for plot in plots)
    return f'<pre style="{_TEXT}">{escape(text)}</pre>{pictures}'


def folded(title: str, text: str) -> str:
    """Text under its title, to be opened."""
    return f"<details><summary>{escape(title)}</summary>{shown(text)}</details>"


def _address(plot: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(plot.strip().encode()).decode()
