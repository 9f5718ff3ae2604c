"""The strategies: how a search's tree grows. Each draws continuations by yielding what it asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from stepcredit.searching.strategy import Draw, Running, SearchSettings, Strategy, best, finish, spent
from stepcredit.searching.streams import uniform
from stepcredit.searching.tree import Node, Tree


def best_of_n(tree: Tree, settings: SearchSettings, first_index: int) -> Running:
    """Best-of-n: whole responses, and the one of largest worth is the answer.

    A weighted vote draws the same; it differs in the final choice only (:mod:`stepcredit.searching.choice`).
    """
    indices = range(first_index, first_index + settings.width)
    drawn = yield Draw(parents=[tree.root] * len(indices), indices=indices, whole=True)
    for node in drawn:
        node.fate = "candidate"


def beam(tree: Tree, settings: SearchSettings, first_index: int) -> Running:
    """Step beam search: the best partial responses are kept, and continued several ways (Snell et al. 2024).

    ``width`` continuations are drawn at each step; the best ``width / expand`` are kept and each is continued
    ``expand`` times. A response that has ended competes with those that have not, and holds its place while
    it is among the best.
    """
    num_beams = settings.width // settings.expand
    slots = range(first_index, first_index + settings.width)
    drawn = yield Draw(parents=[tree.root] * settings.width, indices=slots)
    beams = best(drawn, num_beams)
    for _ in range(settings.depth - 1):
        if spent(tree, settings) or all(node.whole for node in beams):
            break
        _cut(drawn, beams)
        growing = [node for node in beams if not node.whole]
        for node in growing:
            node.fate = "kept"
        parents = [node for node in growing for _ in range(settings.expand)]
        drawn = yield Draw(parents=parents, indices=slots[: len(parents)])
        beams = best([*(node for node in beams if node.whole), *drawn], num_beams)
    _cut(drawn, beams)
    yield from finish(beams, slots)


def _cut(drawn: Sequence[Node], beams: Sequence[Node]) -> None:
    for node in drawn:
        if node not in beams and node.fate == "open":
            node.fate = "cut"


def dvts(tree: Tree, settings: SearchSettings, first_index: int) -> Running:
    """Diverse verifier tree search: beam search in independent subtrees (Beeching et al. 2024).

    Each of ``width / expand`` subtrees draws ``expand`` continuations of its one partial response and keeps
    the best. No subtree crowds out another, so candidates stay diverse where the reward model errs.
    """
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


def lookahead(tree: Tree, settings: SearchSettings, first_index: int) -> Running:
    """Look-ahead search: beam search in which a step is judged by where it leads (Snell et al. 2024).

    Each continuation is followed greedily for some steps more; the worth at the end of that is the
    continuation's. What is drawn there is used for nothing else.
    """
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


def particle(tree: Tree, settings: SearchSettings, first_index: int) -> Running:
    """Particle filtering: partial responses are resampled in proportion to a softmax of their worth.

    After each step ``width`` particles are drawn anew from the ``width`` that there are, with probabilities
    ``softmax(worth / temperature)`` (Puri et al., arXiv:2502.01618). Where the reward model is unsure, many
    different particles live on; a beam would keep only the best. Resampling is systematic: one uniform number
    places all draws, which adds the least noise.
    """
    slots = range(first_index, first_index + settings.width)
    particles: list[Node] = [tree.root] * settings.width
    for depth in range(settings.depth):
        growing = [place for place, node in enumerate(particles) if not node.whole]
        if not growing or (depth > 0 and spent(tree, settings)):
            break
        for place in growing:
            particles[place].fate = "kept"
        # A particle's place is its index, so copies of one particle go different ways.
        drawn = yield Draw(
            parents=[particles[place] for place in growing], indices=[slots[place] for place in growing]
        )
        for place, node in zip(growing, drawn, strict=True):
            particles[place] = node
        number = uniform(settings.seed, tree.prompt.id, first_index, depth)
        survivors = [
            particles[place]
            for place in resample([node.worth for node in particles], settings.temperature, number)
        ]
        for node in particles:
            if node not in survivors:
                node.fate = "cut"
        particles = survivors
    yield from finish(particles, slots)


def resample(worths: Sequence[float], temperature: float, number: float) -> list[int]:
    """Systematic resampling: a particle is drawn as often as its share of ``softmax(worths / temperature)``.

    Args:
        worths: In any unit; only differences count. Minus infinity is never drawn beside a finite one.
        temperature: In the same unit, above 0.
        number: Uniform in (0, 1).

    Returns:
        As many places as there are worths, ascending; place ``i`` comes ``floor`` or ``ceil`` of
        ``particles * weight_i`` times.
    """
    largest = max(worths)
    if largest == -math.inf:
        return list(range(len(worths)))
    # Differences are taken first, so that no exponential overflows.
    reached = list(accumulate(math.exp((worth - largest) / temperature) for worth in worths))
    places: list[int] = []
    place = 0
    for tooth in range(len(worths)):
        while place < len(worths) - 1 and reached[place] <= (tooth + number) / len(worths) * reached[-1]:
            place += 1
        places.append(place)
    return places


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
