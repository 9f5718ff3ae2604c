"""Diverse verifier tree search: beam search in independent subtrees (Beeching et al. 2024).

Each of ``width / expand`` subtrees draws ``expand`` continuations of its one partial response and keeps the
best. No subtree crowds out another, so candidates stay diverse where the reward model errs.
"""

from __future__ import annotations

from stepcredit.searching.strategy import Draw, Running, SearchSettings, best, finish, spent
from stepcredit.searching.tree import Node, Tree


def dvts(tree: Tree, settings: SearchSettings, first_index: int) -> Running:
    """Search until every subtree's response has ended."""
    num_subtrees, expand = settings.width // settings.expand, settings.expand
    starts = range(first_index, first_index + num_subtrees * expand, expand)
    slots = [range(first, first + expand) for first in starts]
    tips: list[Node] = [tree.root] * num_subtrees
    for depth in range(settings.depth):
        growing = [place for place, tip in enumerate(tips) if not tip.whole]
        if not growing or (depth > 0 and spent(tree, settings)):
            break
        for place in growing:
            tips[place].fate = "kept"
        drawn = yield Draw(
            parents=[tips[place] for place in growing for _ in range(expand)],
            indices=[slot for place in growing for slot in slots[place]],
        )
        for number, place in enumerate(growing):
            children = drawn[number * expand : (number + 1) * expand]
            (tips[place],) = best(children, 1)
            for node in children:
                if node is not tips[place]:
                    node.fate = "cut"
    yield from finish(tips, [slot[0] for slot in slots])
