"""Guided search: partial responses are drawn step by step, and a reward model says which to continue."""

from stepcredit.searching.choice import choose_best, choose_by_vote
from stepcredit.searching.driver import Searcher, SearchFailure
from stepcredit.searching.steps import step_ends
from stepcredit.searching.strategies import EXPANDING, STRATEGIES, WEIGHTED
from stepcredit.searching.strategy import SearchSettings
from stepcredit.searching.tree import WORTHS, Node, Tree

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
