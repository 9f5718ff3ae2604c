"""Draws and scores of many searches at once; what goes wrong with one problem stays with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import pytest
from tests.searching.fakes import SAMPLING, DigitPolicy, DigitScorer, problems

from stepcredit.errors import UserError
from stepcredit.searching import STRATEGIES, Node, Searcher, SearchFailure, SearchSettings, Tree, choose_best
from stepcredit.types import GenerationFailure, GenerationRequest, Rollout, Sampling


def _searcher(policy: DigitPolicy, scorer: DigitScorer, sampling: Sampling = SAMPLING) -> Searcher:
    settings = SearchSettings(width=8, expand=4)
    return Searcher(policy, scorer, STRATEGIES["beam"], settings, sampling, ("\n",))


def test_a_problem_that_cannot_be_drawn_fails_alone() -> None:
    results = list(_searcher(DigitPolicy(broken=["p1"]), DigitScorer()).search(problems(3)))
    assert [result for result in results if isinstance(result, SearchFailure)] == [
        SearchFailure("p1", "out of order")
    ]
    assert sum(isinstance(result, Tree) for result in results) == 2


def test_one_request_is_made_for_each_text_that_is_continued() -> None:
    policy = DigitPolicy()
    list(_searcher(policy, DigitScorer()).search(problems(1)))
    asked = [(request.response_prefix, request.num_samples) for request in policy.asked]
    assert asked[0] == ("", 8)
    assert len(asked) == len(set(asked))
    assert {count for _, count in asked[1:]} <= {4, 8}


def test_a_response_keeps_within_its_limit_of_tokens() -> None:
    sampling = dataclasses.replace(SAMPLING, max_new_tokens=5)
    (tree,) = _searcher(DigitPolicy(), DigitScorer(), sampling).search(problems(1))
    assert isinstance(tree, Tree)
    assert max(node.length for node in tree.nodes) == 5
    assert all(node.cut_off and not node.ended for node in tree.candidates)


def test_what_cannot_be_scored_is_never_preferred() -> None:
    searcher = _searcher(DigitPolicy(), DigitScorer(unreadable="9"))
    (tree,) = searcher.search(problems(1))
    assert isinstance(tree, Tree)
    assert searcher.num_unscored == sum(node.text == "9\n" for node in tree.nodes if node.depth == 1)
    assert not choose_best(tree).response.startswith("9")


def test_tokens_are_counted_once() -> None:
    (tree,) = _searcher(DigitPolicy(), DigitScorer()).search(problems(1))
    assert isinstance(tree, Tree)
    assert tree.generated_tokens == sum(node.num_tokens for node in tree.nodes)
    # The scorer counts characters; the last line's end is the end of the turn, which it does not see.
    distinct = {(node.response, node.ended): node for node in tree.nodes}
    assert len(distinct) < len(tree.nodes)
    assert tree.scored_tokens == sum(len(node.text) for node in distinct.values())


def test_a_search_may_go_deeper_than_python_recurses() -> None:
    node = Node(id=0)
    for number in range(1, 2001):
        node = Node(id=number, parent=node, num_tokens=3)
    assert (node.depth, node.length) == (2000, 6000)


class _Bounded(DigitPolicy):
    """Has room for a few tokens; prompts take four of them."""

    context = 8

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        for request in requests:
            read = 4 + len(request.response_prefix)
            if read >= self.context:
                yield GenerationFailure(request.prompt.id, request.indices, "no room")
                continue
            for result in super().generate([request]):
                assert isinstance(result, Rollout)
                yield dataclasses.replace(result, extras={**result.extras, "num_prompt_tokens": read})


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if "best-of" not in name])
def test_a_step_that_ends_where_the_context_does_is_a_response_cut_off_there(strategy: str) -> None:
    settings = SearchSettings(width=8, expand=4)
    searcher = Searcher(_Bounded(), DigitScorer(), STRATEGIES[strategy], settings, SAMPLING, ("\n",))
    (tree,) = searcher.search(problems(1))
    assert isinstance(tree, Tree)
    assert {(len(node.response), node.cut_off, node.ended) for node in tree.candidates} == {(4, True, False)}


class _Uncounted(DigitPolicy):
    """A server that does not say how many tokens it generated."""

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        for result in super().generate(requests):
            assert isinstance(result, Rollout)
            yield dataclasses.replace(result, extras={})


def test_a_server_that_counts_no_tokens_cannot_be_searched_with() -> None:
    settings = SearchSettings(width=8, expand=4, budget=100)
    searcher = Searcher(_Uncounted(), DigitScorer(), STRATEGIES["beam"], settings, SAMPLING, ("\n",))
    with pytest.raises(UserError, match="does not say how many tokens it generated"):
        list(searcher.search(problems(1)))
