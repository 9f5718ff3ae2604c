"""Every row of ``pairs.jsonl``: a reference, a prediction, and whether people would call them equal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepcredit.grading.algebra import equal

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("kind", sorted({row["kind"] for row in ROWS}))
def test_pairs_are_judged_as_people_judge_them(kind: str) -> None:
    rows = [row for row in ROWS if row["kind"] == kind]
    assert [row for row in rows if equal(row["answer"], row["prediction"]) != row["correct"]] == []


def test_an_answer_equals_itself() -> None:
    assert [row["answer"] for row in ROWS if not equal(row["answer"], row["answer"])] == []
