from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from stepcredit.data import rollout_to_json, write_rows
from stepcredit.types import Rollout
from stepcredit_study.frame.measuring import TestBed
from stepcredit_study.frame.world import Responses
from stepcredit_study.lab_properties import properties

ANSWERS = {
    "a": [("3", "1+2=3"), ("3", "1+2=3"), ("3", "so 1+2=3"), ("4", "1+2=4")],
    "b": [("5", "2+3=5"), ("6", "so 2+3=6, so"), ("6", "2+3=6"), ("7", "2+3=7")],
}
RIGHT = {"a": "3", "b": "5"}


@pytest.fixture
def bed(tmp_path: Path) -> TestBed:
    rollouts = [
        Rollout(
            id=f"{name}/{place}",
            prompt_id=name,
            prompt=name,
            response=text,
            index=place,
            prediction=answer,
            correct=answer == RIGHT[name],
        )
        for name, drawn in ANSWERS.items()
        for place, (answer, text) in enumerate(drawn)
    ]
    path = tmp_path / "graded.jsonl"
    write_rows(path, map(rollout_to_json, rollouts))
    return TestBed(Responses(path, path), (2, 4))


def vote(name: str, n: int) -> float:
    """Share of the subsets of n whose most frequent answer is right; ties are split evenly."""
    shares = []
    for subset in combinations([answer for answer, _ in ANSWERS[name]], n):
        most = max(map(subset.count, subset))
        winners = {answer for answer in subset if subset.count(answer) == most}
        shares.append((RIGHT[name] in winners) / len(winners))
    return float(np.mean(shares))


def test_what_a_vote_adds_how_many_differ_and_how_long_they_are(bed: TestBed) -> None:
    single, *added, distinct, ratio = properties(bed)
    assert single == pytest.approx(100 * (3 / 4 + 1 / 4) / 2)
    for n, gain in zip((2, 4), added, strict=True):
        assert gain == pytest.approx(100 * np.mean([vote(name, n) for name in RIGHT]) - single)
    assert distinct == (3 + 4) / 2
    lengths = [[len(text) for _, text in drawn] for drawn in ANSWERS.values()]
    ratios = [np.quantile(row, 0.95) / np.quantile(row, 0.05) for row in lengths]
    assert ratio == pytest.approx(np.mean(ratios))
