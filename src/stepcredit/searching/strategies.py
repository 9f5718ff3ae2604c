"""Strategies by name."""

from __future__ import annotations

from stepcredit.searching.beam import beam
from stepcredit.searching.best_of_n import best_of_n
from stepcredit.searching.dvts import dvts
from stepcredit.searching.lookahead import lookahead
from stepcredit.searching.particle import particle
from stepcredit.searching.strategy import Strategy

WEIGHTED = "weighted-best-of-n"
"""The one whose final choice is a vote."""

STRATEGIES: dict[str, Strategy] = {
    "best-of-n": best_of_n,
    WEIGHTED: best_of_n,
    "beam": beam,
    "dvts": dvts,
    "particle": particle,
    "lookahead": lookahead,
}

EXPANDING = ("beam", "dvts", "lookahead")
"""Strategies that continue each kept partial response several ways."""
