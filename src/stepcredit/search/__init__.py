"""Guided search: partial responses are drawn step by step, and a reward model says which to go on from."""

from stepcredit.search.choice import choose_best, choose_by_vote
from stepcredit.search.driver import Searcher, SearchFailure
from stepcredit.search.steps import step_ends
from stepcredit.search.strategies import EXPANDING, STRATEGIES, WEIGHTED
from stepcredit.search.strategy import SearchSettings
from stepcredit.search.tree import WORTHS, Node, Tree

__all__ = [
    "EXPANDING",
    "STRATEGIES",
    "WEIGHTED",
    "WORTHS",
    "Node",
    "SearchFailure",
    "SearchSettings",
    "Searcher",
    "Tree",
    "choose_best",
    "choose_by_vote",
    "step_ends",
]
