"""The final choice among candidates."""

from __future__ import annotations

import math

from stepcredit.searching import Node, Tree, choose_best, choose_by_vote
from stepcredit.types import Prompt


def _tree(*worths: float) -> Tree:
    tree = Tree(prompt=Prompt(id="p", prompt="q"))
    for worth in worths:
        node = Node(id=len(tree.nodes), parent=tree.root, response=str(worth), worth=worth, fate="candidate")
        tree.nodes.append(node)
    return tree


def test_the_largest_worth_is_chosen_and_comes_first() -> None:
    tree = _tree(1.0, 3.0, 2.0, 3.0)
    assert choose_best(tree).id == 2
    assert [node.id for node in tree.candidates] == [2, 1, 3, 4]


def test_a_vote_sums_the_weights_of_equal_answers() -> None:
    tree = _tree(0.0, 0.0, math.log(1.9))
    answers = ["a", "a", "b"]
    assert choose_by_vote(tree, lambda _, nodes: answers, 1.0).response == "0.0"
    tree = _tree(0.0, 0.0, math.log(2.1))
    assert choose_by_vote(tree, lambda _, nodes: answers, 1.0).id == 3


def test_responses_without_an_answer_have_no_vote() -> None:
    assert choose_by_vote(_tree(9.0, 1.0), lambda _, nodes: [None, "a"], 1.0).id == 2
    assert choose_by_vote(_tree(1.0, 9.0), lambda _, nodes: [None, None], 1.0).id == 2


def test_worths_of_any_size_are_voted_on() -> None:
    assert choose_by_vote(_tree(-5e4, 5e4), lambda _, nodes: ["a", "b"], 1e-3).id == 2
    unread = _tree(-math.inf, -math.inf)
    assert choose_by_vote(unread, lambda _, nodes: ["a", "b"], 1.0).id == 1
