from __future__ import annotations

from fractions import Fraction
from itertools import islice

import pytest

from stepcredit.steps import StepRule, split
from stepcredit_study.word_problems.problems import SPLITS, problems
from stepcredit_study.word_problems.slips import equations, first_slip, numbers_of, step_truths

QUESTION = "A boy has 16 pencils and twice as many pens, each 3 euros. How many things has he?"


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("His brother has 16 - 9 = 7 pencils.", [("7", True)]),
        ("84 * 4 = 302", [("302", False)]),
        ("3 loaves of bread cost 3 * €9 = €27.", [("27", True)]),
        ("There are 39 girls x 4 boys/girl = 156 boys", [("156", True)]),
        ("88 shrimp / 11 shrimp/minute = 7 minutes", [("7", False)]),
        ("11*3=33 and because 88 x 3 = 265", [("33", True), ("265", False)]),
        ("68 pages x 3/4 = 51 pages", [("51", True)]),
        ("(3 + 4) * 5 = 35, but 3 + 4 * 5 = 35", [("35", True), ("35", False)]),
        ("T = 245 - 198 = 47", [("47", True)]),
        ("7 - 10 = -3", [("-3", True)]),
        ("20% * 50 = 10", [("10", True)]),
        ("1,200 + 300 = 1,500.", [("1500", True)]),
        ("10 / 3 = 3.33 or 3.34", [("333/100", True)]),
        ("10 / 3 = 3.34", [("167/50", False)]),
        ("5 / 0 = 0", [("0", False)]),
        # A quotient that is not whole may be rounded either way, a product may not.
        ("30 / 20 = 1, 30 / 20 = 2, 30 / 20 = 3", [("1", True), ("2", True), ("3", False)]),
        ("30 / 15 = 1", [("1", False)]),
    ],
)
def test_an_equation_is_right_or_wrong_by_arithmetic(text: str, stated: list[tuple[str, bool]]) -> None:
    assert [(str(equation.stated), equation.is_right) for equation in equations(text)] == stated


@pytest.mark.parametrize(
    "text",
    [
        "#### 12",
        "He has 12 pencils and 3 pens.",
        "It is 20=20.",
        "He has 70 + 35 + T = 245 toys",
        "The perimeter is 2(16+5) = 42",
        "3 * 4 = 6 * 2",
        "",
    ],
)
def test_what_states_no_result_of_numbers_is_no_equation(text: str) -> None:
    assert equations(text) == []


def test_a_chain_is_judged_at_its_last_result() -> None:
    (equation,) = equations("3*4 = 6*2 = 12")
    assert equation.operands == (Fraction(6), Fraction(2))
    assert equation.is_right


def test_steps_are_right_slip_or_say_nothing_and_the_first_slip_is_found() -> None:
    response = "He has 16 * 2 = 32 pens.\nThat is nice.\n16 + 32 = 49 things.\n49 - 1 = 47\n#### 47"
    truths = step_truths(QUESTION, split(response, StepRule("newline")))
    assert [truth.verdict for truth in truths] == ["right", "none", "slip", "slip", "none"]
    assert first_slip(truths) == 2
    assert first_slip(truths[:2]) == -1


def test_operands_come_from_the_problem_from_earlier_results_or_from_nowhere() -> None:
    response = "16 * 2 = 33\n33 + 16 = 49\n49 * 5 = 245\n#### 245"
    truths = step_truths(QUESTION, split(response, StepRule("newline")))
    # A wrong result is known to the steps after it; the 5 is nowhere.
    assert [(truth.num_foreign, truth.num_operands) for truth in truths] == [(0, 2), (0, 2), (1, 2), (0, 0)]


def test_numbers_are_read_in_digits_and_words() -> None:
    assert numbers_of("Three boys, twice 1,250 and 4.5") == {
        Fraction(3),
        Fraction(2),
        Fraction(1250),
        Fraction("4.5"),
    }


def test_worked_solutions_have_no_slip_and_hardly_a_foreign_operand() -> None:
    num_foreign = num_operands = 0
    for problem in islice(problems(SPLITS[0]), 60):
        truths = step_truths(problem.question, split(problem.solution, StepRule("newline")))
        assert first_slip(truths) == -1, problem.solution
        num_foreign += sum(truth.num_foreign for truth in truths)
        num_operands += sum(truth.num_operands for truth in truths)
    assert num_operands > 200
    assert num_foreign < 0.02 * num_operands
