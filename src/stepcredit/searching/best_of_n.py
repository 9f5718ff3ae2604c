"""Best-of-n: whole responses, and the one of largest worth is the answer.

A weighted vote draws the same; it differs in the final choice only (:mod:`stepcredit.searching.choice`).
"""

from __future__ import annotations

from stepcredit.searching.strategy import Draw, Running, SearchSettings
from stepcredit.searching.tree import Tree


def best_of_n(tree: Tree, settings: SearchSettings, first_index: int) -> Running:
    """Draw ``settings.width`` whole responses, independently."""
    indices = range(first_index, first_index + settings.width)
    drawn = yield Draw(parents=[tree.root] * len(indices), indices=indices, whole=True)
    for node in drawn:
        node.fate = "candidate"
