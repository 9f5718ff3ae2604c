"""Hand verdicts: ``pairs.jsonl`` has references and predictions, ``responses.jsonl`` whole responses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepcredit.grading import GradingItem
from stepcredit.grading.algebra import equal
from stepcredit.grading.mathematics import MathGrader


def rows(name: str) -> list[dict[str, Any]]:
    lines = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


ROWS, RESPONSES = rows("pairs.jsonl"), rows("responses.jsonl")


@pytest.mark.parametrize("kind", sorted({row["kind"] for row in ROWS}))
def test_pairs_are_judged_as_people_judge_them(kind: str) -> None:
    of_kind = [row for row in ROWS if row["kind"] == kind]
    assert [row for row in of_kind if equal(row["answer"], row["prediction"]) != row["correct"]] == []


def test_an_answer_equals_itself() -> None:
    assert [row["answer"] for row in ROWS if not equal(row["answer"], row["answer"])] == []


def test_responses_are_judged_as_people_judge_them() -> None:
    with MathGrader() as grader:
        grades = list(grader.grade_all(GradingItem(row["response"], row["answer"]) for row in RESPONSES))
    pairs = zip(RESPONSES, grades, strict=True)
    assert [(row, grade) for row, grade in pairs if grade.correct != row["correct"]] == []
