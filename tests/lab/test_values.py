from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from stepcredit.lab.task import Problem, apply
from stepcredit.lab.tutor import MID, SYMBOLS, WEAK, Tutor, misconceptions
from stepcredit.lab.values import PrefixState, prefix_value, read_prefix, step_values, value_table

PROBLEM = Problem(7, "*+-", (8, 5, 3))


def step_probability(tutor: Tutor, problem: Problem, done: int, digit: int, result: int) -> float:
    """The slip rule in plain words, one step at a time."""
    symbol, operand = problem.operations[done], problem.operands[done]
    fact = (SYMBOLS.index(symbol), digit, operand)
    strength = float(tutor.strengths(problem.modulus)[fact])
    chance = tutor.slip / problem.modulus
    if result == apply(symbol, digit, operand, problem.modulus):
        chance += (1 - tutor.slip) * (1 - strength)
    if result == misconceptions(problem.modulus).wrong[fact]:
        chance += (1 - tutor.slip) * strength
    return chance


def brute_force(tutor: Tutor, problem: Problem, done: int, digit: int) -> float:
    """Sum over every sequence of digits that the tutor could state from here on."""
    total = 0.0
    left = len(problem.operands) - done
    for results in itertools.product(range(problem.modulus), repeat=left):
        chance, current = 1.0, digit
        for offset, result in enumerate(results):
            chance *= step_probability(tutor, problem, done + offset, current, result)
            current = result
        total += chance * (str(current) == problem.answer)
    return total


@pytest.mark.parametrize("tutor", [MID, WEAK, Tutor("all", misconceived=1.0, slip=0.3)], ids=lambda t: t.name)
@pytest.mark.parametrize(
    "problem", [PROBLEM, Problem(0, "*", (5,)), Problem(4, "*>-", (3, 2, 4), modulus=5)], ids=lambda p: p.text
)
def test_the_value_table_is_that_of_brute_force(tutor: Tutor, problem: Problem) -> None:
    table = value_table(tutor, problem)
    expected = [
        [brute_force(tutor, problem, done, digit) for digit in range(problem.modulus)]
        for done in range(len(problem.operands) + 1)
    ]
    np.testing.assert_allclose(table, expected, atol=1e-12)


def test_a_tutor_without_flaws_is_right_where_the_digit_is() -> None:
    flawless = Tutor("flawless", misconceived=0.0, slip=0.0)
    assert step_values(flawless, PROBLEM, "7*8=6\n6+5=2\n2-3=9\n#9").tolist() == [1, 0, 0, 0]
    assert step_values(flawless, PROBLEM, "7*8=6\n6+5=1\n1-3=8\n#8").tolist() == [1, 1, 1, 1]


def test_a_careless_but_unprejudiced_tutor_by_hand() -> None:
    careless = Tutor("careless", misconceived=0.0, slip=0.5)
    # One addition left: right with 0.5 + 0.05 from the right digit, with 0.05 from any other.
    problem = Problem(1, "++", (2, 3))
    assert prefix_value(careless, problem, "1+2=3\n") == pytest.approx(0.55)
    assert prefix_value(careless, problem, "1+2=4\n") == pytest.approx(0.05)
    assert prefix_value(careless, problem, "") == pytest.approx(0.55 * 0.55 + 9 * 0.05 * 0.05)


@pytest.mark.parametrize(
    ("prefix", "state"),
    [
        ("", PrefixState(0, 7)),
        ("7*8", PrefixState(0, 7, opened="7*8")),
        ("7*8=", PrefixState(0, 7, opened="7*8=")),
        ("7*8=5", PrefixState(1, 5, line_open=True)),
        ("7*8=5\n", PrefixState(1, 5)),
        ("7*8=5\n5+", PrefixState(1, 5, opened="5+")),
        ("7*8=5\n9+5=4\n", PrefixState(2, 4)),  # a copying error: it goes on from what is stated
        ("7*8=6\n6+5=1\n1-3=8\n#", PrefixState(3, 8, opened="#")),
        ("7*8=6\n6+5=1\n1-3=8\n#4", PrefixState(3, 8, answer=4)),
        ("7*8=6\n#8\n", PrefixState(1, 6, answer=8)),
        ("7*8=5\n6", None),  # not how the tutor would go on
        ("7*8=56\n", None),
        ("7*8=6\n\n", None),
        ("7*8=6\n#6\n6+5=1", None),
        ("7*8=6\n6+5=1\n1-3=8\n8+2=0", None),
        ("hello", None),
    ],
)
def test_prefixes_that_a_tutor_could_go_on_from(prefix: str, state: PrefixState | None) -> None:
    assert read_prefix(PROBLEM, prefix) == state


def test_values_change_only_where_a_digit_is_stated() -> None:
    assert prefix_value(MID, PROBLEM, "7*8=") == prefix_value(MID, PROBLEM, "")
    assert prefix_value(MID, PROBLEM, "7*8=6") == prefix_value(MID, PROBLEM, "7*8=6\n6+5=")


def test_a_value_is_the_mean_of_the_values_that_can_follow() -> None:
    following = [
        step_probability(WEAK, PROBLEM, 1, 6, digit) * prefix_value(WEAK, PROBLEM, f"7*8=6\n6+5={digit}\n")
        for digit in range(10)
    ]
    assert prefix_value(WEAK, PROBLEM, "7*8=6\n") == pytest.approx(sum(following), abs=1e-12)


def test_an_answer_settles_the_value_and_garbage_has_none() -> None:
    assert prefix_value(MID, PROBLEM, "7*8=6\n#8") == 1.0
    assert prefix_value(MID, PROBLEM, "7*8=6\n#6") == 0.0
    values = step_values(MID, PROBLEM, "7*8=6\nwhat?\n1-3=8\n#8")
    assert [math.isnan(value) for value in values] == [False, True, True, True]


def test_a_digit_that_the_base_does_not_have_has_no_value() -> None:
    assert math.isnan(prefix_value(MID, Problem(3, "*+", (4, 2), modulus=5), "3*4=7\n"))
