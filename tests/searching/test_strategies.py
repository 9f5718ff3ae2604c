"""What each strategy draws, keeps and gives up, on a world whose best response is known."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.searching.fakes import LINES, SAMPLING, DigitPolicy, DigitScorer, problems

from stepcredit.searching import STRATEGIES, Searcher, SearchSettings, Tree, choose_best
from stepcredit.searching.strategies import resample
from stepcredit.types import GenerationRequest, Rollout

STEPWISE = ("beam", "dvts", "particle", "lookahead")


def _search(
    name: str, *, count: int = 1, scorer: Any = None, at_once: int = 32, **settings: Any
) -> list[Tree]:
    searcher = Searcher(
        DigitPolicy(),
        scorer or DigitScorer(),
        STRATEGIES[name],
        SearchSettings(**{"width": 8, "expand": 4, **settings}),
        SAMPLING,
        ("\n",),
        problems_at_once=at_once,
    )
    trees = [tree for tree in searcher.search(problems(count)) if isinstance(tree, Tree)]
    for tree in trees:
        choose_best(tree)
    return sorted(trees, key=lambda tree: tree.prompt.id)


def _shape(tree: Tree) -> list[Any]:
    return [(node.response, node.fate, node.worth, node.index) for node in tree.nodes]


@pytest.mark.parametrize("name", STRATEGIES)
def test_candidates_are_whole_and_the_best_is_chosen(name: str) -> None:
    (tree,) = _search(name)
    candidates = tree.candidates
    assert candidates
    assert all(node.ended and node.response.count("\n") == LINES - 1 for node in candidates)
    assert candidates[0].fate == "chosen"
    assert candidates[0].worth == max(node.worth for node in candidates)
    assert [node.fate for node in tree.nodes].count("chosen") == 1
    assert "open" not in {node.fate for node in tree.nodes}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_search_is_the_same_alone_and_beside_others(name: str) -> None:
    together = _search(name, count=5, at_once=5)
    assert [_shape(tree) for tree in _search(name, count=5, at_once=1)] == [_shape(tree) for tree in together]
    assert [_shape(tree) for tree in _search(name, count=5, at_once=2)] == [_shape(tree) for tree in together]
    assert _shape(_search(name, seed=1)[0]) != _shape(together[0])


def test_best_of_n_draws_whole_responses_only() -> None:
    (tree,) = _search("best-of-n", width=8)
    assert [node.depth for node in tree.nodes] == [0] + [1] * 8
    assert len(tree.candidates) == 8


def test_beam_keeps_the_best_of_all_continuations() -> None:
    (tree,) = _search("beam", width=8, expand=4)
    for depth in range(1, LINES):
        level = [node for node in tree.nodes if node.depth == depth]
        kept = [node for node in level if node.fate == "kept"]
        assert (len(level), len(kept)) == (8, 2)
        assert len({node.response for node in kept}) == 2
        others = {node.response: node.worth for node in level} | {node.response: -1.0 for node in kept}
        assert min(node.worth for node in kept) >= max(others.values())
    assert len(tree.candidates) == 2


def test_subtrees_of_dvts_do_not_crowd_each_other_out() -> None:
    (tree,) = _search("dvts", width=8, expand=4)
    for depth in range(1, LINES):
        level = [node for node in tree.nodes if node.depth == depth]
        for subtree in (level[:4], level[4:]):
            assert Counter(node.fate for node in subtree) == {"kept": 1, "cut": 3}
            assert max(subtree, key=lambda node: node.worth).worth == next(
                node.worth for node in subtree if node.fate == "kept"
            )


def test_copies_of_a_particle_go_different_ways() -> None:
    (tree,) = _search("particle", width=8, temperature=1e-6)
    best_first = max((node for node in tree.nodes if node.depth == 1), key=lambda node: node.worth)
    children = [node for node in tree.nodes if node.parent is best_first]
    assert len(children) == 8
    assert len({node.index for node in children}) == 8
    assert len({node.response for node in children}) > 1


def test_hot_particles_all_live_on() -> None:
    (tree,) = _search("particle", width=8, temperature=1e9)
    assert [node.fate for node in tree.nodes if node.depth == 1] == ["kept"] * 8


def test_lookahead_judges_a_step_by_where_it_leads() -> None:
    def reward(line: str) -> float:
        return 100.0 if line == "5" else 0.0  # What the greedy look-ahead writes.

    (tree,) = _search("lookahead", scorer=DigitScorer(reward), lookahead=2)
    first = [node for node in tree.nodes if node.depth == 1]
    assert {node.worth - (100.0 if node.text == "5\n" else 0.0) for node in first} == {200.0}
    further = [node for node in tree.nodes if node.fate == "lookahead"]
    assert further
    assert all(node.text.strip() == "5" for node in further)


class CountingPolicy(DigitPolicy):
    """Knows how many tokens it drew."""

    num_drawn = 0

    def _rollout(self, request: GenerationRequest, index: int) -> Rollout:
        rollout = super()._rollout(request, index)
        self.num_drawn += rollout.extras["num_generated_tokens"]
        return rollout


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_search_costs_what_was_drawn(name: str) -> None:
    """Also where a look-ahead follows steps of equal text, which are followed once."""
    policy = CountingPolicy()
    settings = SearchSettings(width=16, expand=4, lookahead=2)
    searcher = Searcher(policy, DigitScorer(), STRATEGIES[name], settings, SAMPLING, ("\n",))
    (tree,) = (tree for tree in searcher.search(problems(1)) if isinstance(tree, Tree))
    assert tree.generated_tokens == policy.num_drawn > 0


@pytest.mark.parametrize("name", STEPWISE)
def test_guided_by_the_truth_steps_beat_whole_responses(name: str) -> None:
    guided = np.mean([tree.candidates[0].worth for tree in _search(name, count=20, temperature=0.5)])
    blind = np.mean([tree.candidates[0].worth for tree in _search("best-of-n", count=20)])
    assert guided > blind + 3


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_budget_is_used_up_and_hardly_exceeded(name: str) -> None:
    (tree,) = _search(name, budget=300)
    assert 300 <= tree.generated_tokens < 300 + 8 * 4 * LINES
    assert all(node.whole for node in tree.candidates)


@pytest.mark.parametrize("name", STEPWISE)
def test_past_the_budget_nothing_branches(name: str) -> None:
    (tree,) = _search(name, budget=1)
    assert {node.depth for node in tree.nodes if node.fate in ("candidate", "chosen")} == {2}


@pytest.mark.parametrize("name", STEPWISE)
def test_what_is_open_at_the_depth_is_drawn_to_its_end(name: str) -> None:
    (tree,) = _search(name, depth=2)
    assert all(node.ended and node.depth == 3 for node in tree.candidates)


@pytest.mark.parametrize("worth", ["value", "min", "last", "mean"])
def test_worth_is_what_is_asked_for(worth: str) -> None:
    (tree,) = _search("beam", worth=worth)
    for node in tree.nodes[1:]:
        digits = [int(line) for line in node.response.split()]
        expected = {"value": sum(digits), "min": min(digits), "last": digits[-1], "mean": np.mean(digits)}
        assert node.worth == pytest.approx(expected[worth])


@settings(max_examples=80)
@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=20),
    st.floats(0.05, 20),
    st.floats(1e-9, 1 - 1e-9),
)
def test_resampling_gives_each_particle_its_share(
    worths: list[float], temperature: float, number: float
) -> None:
    places = resample(worths, temperature, number)
    # A naive twin, with the same uniform number.
    weights = [np.exp((worth - max(worths)) / temperature) for worth in worths]
    counts = Counter(places)
    assert len(places) == len(worths)
    for place, weight in enumerate(weights):
        share = len(worths) * weight / sum(weights)
        assert np.floor(share - 1e-6) <= counts[place] <= np.ceil(share + 1e-6)


def test_particles_that_cannot_be_scored_die_where_others_live() -> None:
    assert resample([-np.inf, 0.0, -np.inf], 1.0, 0.5) == [1, 1, 1]
    assert resample([-np.inf, -np.inf], 1.0, 0.5) == [0, 1]
