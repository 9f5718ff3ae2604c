"""Particle filtering: partial responses are resampled in proportion to a softmax of their worth.

After each step ``width`` particles are drawn anew from the ``width`` that there are, with probabilities
``softmax(worth / temperature)`` (Puri et al., arXiv:2502.01618). Where the reward model is unsure, many
different particles live on; a beam would keep only the best. Resampling is systematic: one uniform number
places all draws, which adds the least noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from stepcredit.searching.strategy import Draw, Running, SearchSettings, finish, spent
from stepcredit.searching.streams import uniform
from stepcredit.searching.tree import Node, Tree


def particle(tree: Tree, settings: SearchSettings, first_index: int) -> Running:
    """Search until every particle has ended."""
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
