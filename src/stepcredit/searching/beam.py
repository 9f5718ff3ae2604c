"""Step beam search: the best partial responses are kept, each is continued several ways (Snell et al. 2024).

``width`` continuations are drawn at each step; the best ``width / expand`` are kept and each is continued
``expand`` times. A response that has ended competes with those that have not, and holds its place while it
is among the best.
"""

from __future__ import annotations

from stepcredit.searching.strategy import Draw, Running, SearchSettings, best, finish, spent
from stepcredit.searching.tree import Tree


def beam(tree: Tree, settings: SearchSettings, first_index: int) -> Running:
    """Search until all beams have ended."""
    num_beams = settings.width // settings.expand
    slots = range(first_index, first_index + settings.width)
    drawn = yield Draw(parents=[tree.root] * settings.width, indices=slots)
    beams = best(drawn, num_beams)
    for _ in range(settings.depth - 1):
        if spent(tree, settings) or all(node.whole for node in beams):
            break
        for node in drawn:
            if node not in beams and node.fate == "open":
                node.fate = "cut"
        growing = [node for node in beams if not node.whole]
        for node in growing:
            node.fate = "kept"
        parents = [node for node in growing for _ in range(settings.expand)]
        drawn = yield Draw(parents=parents, indices=slots[: len(parents)])
        beams = best([*(node for node in beams if node.whole), *drawn], num_beams)
    for node in drawn:
        if node not in beams and node.fate == "open":
            node.fate = "cut"
    yield from finish(beams, slots)
