"""Look-ahead search: beam search in which a step is judged by where it leads (Snell et al. 2024).

Each continuation is followed greedily for some steps more; the worth at the end of that is the
continuation's. What is drawn there is used for nothing else.
"""

from __future__ import annotations

from stepcredit.searching.strategy import Draw, Running, SearchSettings, best, finish, spent
from stepcredit.searching.tree import Node, Tree


def lookahead(tree: Tree, settings: SearchSettings, first_index: int) -> Running:
    """Search until all beams have ended."""
    num_beams = settings.width // settings.expand
    slots = range(first_index, first_index + settings.width)
    parents: list[Node] = [tree.root] * settings.width
    ended: list[Node] = []
    beams: list[Node] = []
    for _ in range(settings.depth):
        drawn = yield Draw(parents=parents, indices=slots[: len(parents)])
        yield from _look_ahead(drawn, settings)
        beams = best([*ended, *drawn], num_beams)
        for node in drawn:
            node.fate = "kept" if node in beams else "cut"
        ended = [node for node in beams if node.whole]
        growing = [node for node in beams if not node.whole]
        if spent(tree, settings) or not growing:
            break
        parents = [node for node in growing for _ in range(settings.expand)]
    yield from finish(beams, slots)


def _look_ahead(nodes: list[Node], settings: SearchSettings) -> Running:
    """Replace the worth of each open node by that of where it leads."""
    tips = [node for node in nodes if not node.whole]
    origins = list(tips)
    for _ in range(settings.lookahead):
        places = [place for place, tip in enumerate(tips) if not tip.whole]
        if not places:
            break
        further = yield Draw(
            parents=[tips[place] for place in places], indices=[0] * len(places), greedy=True
        )
        for place, node in zip(places, further, strict=True):
            node.fate = "lookahead"
            tips[place] = node
    for origin, tip in zip(origins, tips, strict=True):
        origin.worth = tip.worth
