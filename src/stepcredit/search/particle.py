"""Particle filtering: partial responses are resampled in proportion to a softmax of their worth.

After each step ``width`` particles are drawn anew from the ``width`` that there are, with probabilities
``softmax(worth / temperature)`` (Puri et al., arXiv:2502.01618). Where the reward model is unsure, many
different particles live on; a beam would keep only the best. Resampling is systematic: one uniform number
places all draws, which adds the least noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from stepcredit.search.strategy import Draw, Running, SearchSettings, finish, spent
from stepcredit.search.streams import uniform
from stepcredit.search.tree import Node, Tree


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
        survivors = [particles[place] for place in resample(_worths(particles), settings.temperature, number)]
        for node in particles:
            if node not in survivors:
                node.fate = "cut"
        particles = survivors
    yield from finish(particles, slots)


def _worths(particles: Sequence[Node]) -> Float64[np.ndarray, " particles"]:
    return np.asarray([node.worth for node in particles], dtype=np.float64)


def resample(
    worths: Float64[np.ndarray, " particles"], temperature: float, number: float
) -> Int64[np.ndarray, " particles"]:
    """Systematic resampling: a particle is drawn as often as its share of ``softmax(worths / temperature)``.

    Args:
        worths: In any unit; only differences count.
        temperature: In the same unit, above 0.
        number: Uniform in (0, 1).

    Returns:
        As many places as there are worths, ascending; place ``i`` comes ``floor`` or ``ceil`` of
        ``particles * weight_i`` times.
    """
    weights = np.exp((worths - worths.max()) / temperature)
    shares = np.cumsum(weights) / weights.sum()
    shares[-1] = 1.0
    combs = (np.arange(len(worths)) + number) / len(worths)
    return np.searchsorted(shares, combs, side="right").clip(0, len(worths) - 1)
