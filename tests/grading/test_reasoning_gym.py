from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from stepcredit.errors import DataError, MissingExtraError, UserError
from stepcredit.grading import Grade, Grader, GradingItem, make_grader
from stepcredit.grading.reasoning_gym import FIELD, make_task

PROBLEM: dict[str, Any] = {"seed": 7, "size": 20, "settings": {}, "index": 3}


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with make_grader("reasoning-gym", num_workers=1) as grader:
        yield grader


def item_of(task: str) -> Any:
    return make_task(task, seed=7, size=20, settings={})[3]


def asked(task: str, response: str) -> GradingItem:
    return GradingItem(response, item_of(task)["answer"], "p", {FIELD: {"task": task, **PROBLEM}})


@pytest.mark.parametrize("task", ["gsm_symbolic", "chain_sum", "word_sorting", "basic_arithmetic"])
def test_the_tasks_own_answer_is_right_and_another_is_wrong(grader: Grader, task: str) -> None:
    answer = str(item_of(task)["answer"])
    right = [
        asked(task, text) for text in (f"So it is.\n#### {answer}", f"<answer>{answer}</answer>", answer)
    ]
    wrong = [asked(task, "#### -31337"), asked(task, "<answer>zebra</answer>")]
    grades = list(grader.grade_all(right + wrong))
    assert [grade.correct for grade in grades] == [True, True, True, False, False]
    assert {grade.prediction for grade in grades[:3]} == {answer}
    assert [grade.prediction for grade in grades[3:]] == ["-31337", "zebra"]


def test_partial_credit_is_not_right(grader: Grader) -> None:
    # Only the first number of an answer is read, and a wrong number scores .01.
    answer = item_of("gsm_symbolic")["answer"]
    assert next(iter(grader.grade_all([asked("gsm_symbolic", f"#### {answer}.5")]))).correct is False


def test_an_answer_that_spells_a_number_otherwise_is_judged_by_the_task(grader: Grader) -> None:
    answer = item_of("gsm_symbolic")["answer"]
    grade = next(iter(grader.grade_all([asked("gsm_symbolic", f"#### {answer}.00")])))
    assert grade == Grade(True, answer, "match")


def test_an_empty_response_has_no_answer_and_order_is_kept(grader: Grader) -> None:
    items = [asked("chain_sum", text) for text in ("", "#### 1", " ", item_of("chain_sum")["answer"])]
    grades = list(grader.grade_all(items))
    assert [grade.reason for grade in grades] == ["no-answer", "differs", "no-answer", "match"]


def test_a_pattern_finds_the_answer() -> None:
    with make_grader("reasoning-gym", num_workers=1, answer_pattern=r"^= (.+)$") as grader:
        answer = item_of("chain_sum")["answer"]
        responses = [f"#### 5\n= {answer}\nor 6", f"#### {answer}"]
        grades = list(grader.grade_all(asked("chain_sum", response) for response in responses))
    assert [grade.reason for grade in grades] == ["match", "no-answer"]


@pytest.mark.parametrize("extras", [{}, {FIELD: "chain_sum"}, {FIELD: {"task": "chain_sum"}}])
def test_a_response_that_does_not_say_its_problem_is_an_error(grader: Grader, extras: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"prompt 'p' does not say which problem.*Sample from reasoning-gym"):
        list(grader.grade_all([GradingItem("#### 5", "5", "p", extras)]))


def test_an_unknown_task_and_unknown_settings_are_named() -> None:
    with pytest.raises(UserError, match=r"there is no task 'chain_sums'. Use chain_sum, decimal_chain_sum"):
        make_task("chain_sums", seed=0, size=1, settings={})
    with pytest.raises(UserError, match=r"reasoning-gym:chain_sum: .*Its settings are min_terms"):
        make_task("chain_sum", seed=0, size=1, settings={"digits": 3})
    with pytest.raises(UserError, match=r"reasoning-gym:chain_sum: does not take these settings"):
        make_task("chain_sum", seed=0, size=1, settings={"min_terms": 5, "max_terms": 2})


def test_without_the_package_the_error_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stepcredit\[reasoning-gym\]'"):
        make_task("chain_sum", seed=0, size=1, settings={})
