"""Which of a search's candidates is the answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from stepcredit.searching.strategy import best
from stepcredit.searching.tree import Node, Tree

Answers = Callable[[Tree, Sequence[Node]], Sequence[str | None]]
"""Final answers of responses to one problem, in a form that equivalent ones share; ``None`` is none."""


def choose_best(tree: Tree) -> Node:
    """The candidate of largest worth."""
    (node,) = best(tree.candidates, 1)
    node.fate = "chosen"
    return node


def choose_by_vote(tree: Tree, answers: Answers, temperature: float) -> Node:
    """The best candidate of the answer whose candidates weigh most, each ``exp(worth / temperature)``.

    Responses without an answer have no vote; where none has one, the best candidate is chosen.
    """
    candidates = tree.candidates
    given = answers(tree, candidates)
    voters = [(node, answer) for node, answer in zip(candidates, given, strict=True) if answer is not None]
    if not voters:
        return choose_best(tree)
    largest = max(node.worth for node, _ in voters)
    weights: dict[str, float] = {}
    for node, answer in voters:
        # Differences of worth are taken first, so that no exponential overflows.
        weight = math.exp((node.worth - largest) / temperature) if largest > -math.inf else 1.0
        weights[answer] = weights.get(answer, 0.0) + weight
    winner = max(weights, key=lambda answer: weights[answer])
    (node,) = best([node for node, answer in voters if answer == winner], 1)
    node.fate = "chosen"
    return node
