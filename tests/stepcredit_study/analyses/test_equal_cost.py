"""Picking at the cost of a search, beside every subset counted by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepcredit.data import rollout_to_json, write_rows
from stepcredit.pipelines.search import trees_path
from stepcredit.runs import Ledger, Manifest, manifest_path, write_json
from stepcredit.types import Rollout
from stepcredit_study.analyses.equal_cost import Picking, costs_of, distinct_tokens
from stepcredit_study.frame.world import Searched

DRAWING, SCORING = 10, 30
"""Parameters that run for a drawn token, and for a scored one."""


def _written(folder: Path, problems: dict[str, list[tuple[str, bool, float | None]]]) -> Searched:
    """A search's files: responses of each problem with whether they are right, and their worths."""
    rollouts, trees = [], []
    for problem, responses in problems.items():
        for index, (text, is_right, worth) in enumerate(responses):
            rollout = Rollout(
                id=f"{problem}-{index}", prompt_id=problem, prompt="?", response=text, index=index
            )
            extras = {"num_generated_tokens": len(text), "search": {"worth": worth}}
            rollouts.append(replace(rollout, correct=is_right, prediction=text[-1], extras=extras))
        generated = sum(len(text) for text, _, _ in responses)
        scored = sum(map(len, {text for text, _, _ in responses}))
        trees.append({"prompt_id": problem, "generated_tokens": generated, "scored_tokens": scored})
    graded, ungraded = folder / "graded.jsonl", folder / "rollouts.jsonl"
    write_rows(graded, map(rollout_to_json, rollouts))
    write_rows(ungraded, [])
    write_rows(trees_path(ungraded), trees)
    manifest = Manifest("search", {}, ledger=Ledger(model_parameters=DRAWING, scoring_parameters=SCORING))
    write_json(manifest_path(ungraded), manifest.to_json())
    return Searched(graded, ungraded)


RESPONSES: list[tuple[str, bool, float | None]] = [
    ("aa1", True, 2.0),
    ("bbb2", False, 3.0),
    ("aa1", True, 2.0),
    ("c3", False, 1.0),
    ("dddd4", True, None),
]


@pytest.fixture
def picking(tmp_path: Path) -> Picking:
    return Picking(_written(tmp_path, {"p": RESPONSES}))


def test_accuracy_and_cost_are_means_over_all_subsets(picking: Picking) -> None:
    assert picking.largest == len(RESPONSES)
    for n in range(1, len(RESPONSES) + 1):
        right, tokens, scored = [], [], []
        for subset in itertools.combinations(RESPONSES, n):
            best = max(subset, key=lambda response: -1e9 if response[2] is None else response[2])
            right.append(best[1])
            tokens.append(sum(len(text) for text, _, _ in subset))
            scored.append(sum(map(len, {text for text, _, _ in subset})))
        assert picking.accuracies[n - 1, 0] == pytest.approx(np.mean(right))
        assert picking.tokens[n - 1, 0] == pytest.approx(np.mean(tokens))
        operations = 2 * (DRAWING * np.mean(tokens) + SCORING * np.mean(scored))
        assert picking.operations[n - 1, 0] == pytest.approx(operations)
        assert picking.coverage(n) == pytest.approx(
            np.mean([any(r[1] for r in s) for s in itertools.combinations(RESPONSES, n)])
        )


def test_at_a_cost_between_two_numbers_accuracy_lies_between(picking: Picking, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    costs = costs_of(_written(tmp_path / "other", {"p": [("x" * 5, True, 0.0)]}))
    assert costs.generated[0] == 5
    assert costs.operations[0] == 2 * (DRAWING + SCORING) * 5
    # A response has 3.4 tokens in the mean, so 5 tokens are 1.47 responses.
    one, two = picking.accuracies[:2, 0]
    share = 5 / 3.4 - 1
    assert picking.at_tokens(costs) == pytest.approx((1 - share) * one + share * two)
    assert picking.at_operations(costs) != picking.at_tokens(costs)


def test_problems_are_matched_by_name(tmp_path: Path) -> None:
    easy: list[Any] = [("a1", True, 0.0), ("b1", True, 0.0)]
    hard: list[Any] = [("a2", False, 0.0), ("b3", True, 1.0)]
    folders = [tmp_path / name for name in ("pool", "search")]
    for folder in folders:
        folder.mkdir()
    picking = Picking(_written(folders[0], {"easy": easy, "hard": hard}))
    # The hard problem was searched with twice the tokens of the easy one.
    costs = costs_of(_written(folders[1], {"hard": [("xxxx", True, 0.0)], "easy": [("xx", True, 0.0)]}))
    assert picking.at_tokens(costs) == pytest.approx((1.0 + 1.0) / 2)
    assert picking.accuracies[0].mean() == pytest.approx((1.0 + 0.5) / 2)


def test_a_vote_weighs_by_worth(picking: Picking) -> None:
    # All five: two copies of "1" at worth 2 against one "2" at worth 3.
    assert picking.vote(5, temperature=10.0) == 1.0
    assert picking.vote(5, temperature=0.1) == 0.0


def test_distinct_tokens_are_those_of_a_naive_count() -> None:
    responses = ["a", "bb", "a", "a", "ccc"]
    lengths = np.array([1.0, 2.0, 1.0, 1.0, 3.0, 0.0])
    naive = [
        np.mean([sum(map(len, set(subset))) for subset in itertools.combinations(responses, n)])
        for n in range(1, 6)
    ]
    assert distinct_tokens(responses, lengths, 5) == pytest.approx(np.array(naive))
