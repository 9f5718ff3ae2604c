"""Strategies by name."""

from __future__ import annotations

from stepcredit.search.beam import beam
from stepcredit.search.best_of_n import best_of_n
from stepcredit.search.dvts import dvts
from stepcredit.search.lookahead import lookahead
from stepcredit.search.particle import particle
from stepcredit.search.strategy import Strategy

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
