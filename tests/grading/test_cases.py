"""Every row of ``cases.json`` is graded as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepcredit.grading import GradingItem, make_grader

CASES: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "cases.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", list(CASES))
def test_answers_are_graded_as_the_cases_say(name: str) -> None:
    failures = []
    by_pattern: dict[str | None, list[dict[str, Any]]] = {}
    for case in CASES[name]:
        by_pattern.setdefault(case.get("answer_pattern"), []).append(case)
    for pattern, cases in by_pattern.items():
        with make_grader(name, answer_pattern=pattern) as grader:
            grades = grader.grade_all(GradingItem(case["response"], case["answer"]) for case in cases)
            for case, grade in zip(cases, grades, strict=True):
                # A case without a prediction either finds nothing or does not care for the spelling.
                if grade.correct != case["correct"] or case["prediction"] not in (None, grade.prediction):
                    failures.append((case, grade))
                assert (grade.reason == "match") == grade.correct
    assert not failures
