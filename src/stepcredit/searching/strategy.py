"""What a strategy is: it asks for draws, sees what came, and in the end names candidates.

A strategy is a generator function. It yields :class:`Draw` requests; the driver answers each with the nodes
that were drawn, scored. So strategies read top to bottom, know nothing of models, and any number of
problems run side by side in the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from stepcredit.searching.tree import Node, Tree


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How wide, how deep, and by what.

    Attributes:
        width: Responses that a search holds at once (beams, particles, samples).
        expand: Continuations of each kept partial response; ``width`` must be a multiple of it.
        depth: Most steps; what is open then is drawn to its end.
        budget: Generated tokens for each problem, after which nothing branches any more and what is open is
            drawn to its end; a search that is done earlier starts again with other random numbers and all
            candidates compete. ``None``: one search.
        worth: What a partial response is worth; one of :data:`~stepcredit.searching.tree.WORTHS`.
        temperature: Of the softmax over worths by which particles are resampled.
        lookahead: Steps drawn greedily beyond a partial response to judge it.
        seed: Of everything that is random.
    """

    width: int = 16
    expand: int = 4
    depth: int = 40
    budget: int | None = None
    worth: str = "value"
    temperature: float = 1.0
    lookahead: int = 1
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Asks for continuations.

    Attributes:
        parents: One node for each continuation; a node may come several times.
        indices: Which sample of its parent's text each continuation is. Two continuations of the same text
            are the same where their indices are, so an index is used once for each text.
        whole: Draw to the end of the response, not of the step.
        greedy: Take the likeliest tokens.
        scored: Whether the worth of what is drawn is asked for.
    """

    parents: Sequence[Node]
    indices: Sequence[int]
    whole: bool = False
    greedy: bool = False
    scored: bool = True


Running = Generator[Draw, list[Node], None]
"""A search that is under way: yields draws, is sent their nodes in the order asked for."""

Strategy = Callable[[Tree, SearchSettings, int], Running]
"""Searches one problem.

Its arguments are the problem's tree, the settings, and the first index that this round of the search may use;
rounds of one problem use indices of their own. It marks the candidates among the tree's nodes."""


def best(nodes: Sequence[Node], count: int) -> list[Node]:
    """The ``count`` nodes of largest worth, in the order in which they were drawn; earlier ones win ties.

    Of equal texts all but the first come last: going on from both would explore one response twice.
    """
    texts: set[str] = set()
    repeated: set[Node] = set()
    for node in sorted(nodes, key=lambda node: node.id):
        if node.response in texts:
            repeated.add(node)
        texts.add(node.response)
    ranked = sorted(nodes, key=lambda node: (node in repeated, -node.worth, node.id))[:count]
    return sorted(ranked, key=lambda node: node.id)


def spent(tree: Tree, settings: SearchSettings) -> bool:
    """Whether the budget is used up."""
    return settings.budget is not None and tree.generated_tokens >= settings.budget


def finish(nodes: Sequence[Node], indices: Sequence[int]) -> Running:
    """Draw each open node to its end; then all are candidates."""
    places = [place for place, node in enumerate(nodes) if not node.whole]
    for place in places:
        nodes[place].fate = "kept"
    drawn: list[Node] = []
    if places:
        drawn = yield Draw(
            parents=[nodes[place] for place in places],
            indices=[indices[place] for place in places],
            whole=True,
        )
    for node in [*(node for node in nodes if node.whole), *drawn]:
        node.fate = "candidate"
