"""Exact values beside a sum over everything that the tutor could write, by the rules in plain words."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cache

import pytest

from stepcredit.lab.second.tutor import SECOND_TUTORS, STYLES, SecondTutor
from stepcredit.lab.second.values import value_table
from stepcredit.lab.task import OPERATIONS, Problem
from stepcredit.lab.tutor import SYMBOLS, misconceptions
from stepcredit.lab.values import prefix_value, step_values

MID = SECOND_TUTORS["mid"]
STEADY = SecondTutor("steady", misconceived=1.0, slip=0.0, notice=0.3, doubt=0.2)
PROBLEM = Problem(13, "*+-", (7, 5, 8), modulus=20)


@cache
def outcomes(
    tutor: SecondTutor, problem: Problem, symbol: str, left: int, operand: int
) -> tuple[dict[int, float], set[int]]:
    """Each result that may be stated to its chance, and those that the tutor takes for right."""
    facts = misconceptions()
    fact = SYMBOLS.index(symbol), left % 10, operand
    right = OPERATIONS[symbol](left, operand) % problem.modulus
    believed = right
    if facts.rank[fact] < round(tutor.misconceived * 80):
        digit = (right + int(facts.wrong[fact]) - int(facts.right[fact])) % 10
        believed = right - right % 10 + digit
    chances: dict[int, float] = defaultdict(float)
    for slip in (1, -1, 10, -10):
        chances[(right + slip) % problem.modulus] += tutor.slip / 4
    chances[right] += (1 - tutor.slip) * (1 - float(facts.strength[fact]))
    chances[believed] += (1 - tutor.slip) * float(facts.strength[fact])
    return {result: chance for result, chance in chances.items() if chance}, {right, believed}


def brute_force(
    tutor: SecondTutor, problem: Problem, style: str, done: int, value: int, *, detour: bool = True
) -> float:
    """P(right) with ``done`` operations done: the sum over every way to go on."""
    if done == len(problem.operands):
        return float(problem.number(value) == problem.answer)
    manner, total = STYLES[style], 0.0
    away = manner.detour if detour else 0.0
    symbol, operand = problem.operations[done], problem.operands[done]
    chances, believed = outcomes(tutor, problem, symbol, value, operand)
    for result, chance in chances.items():
        again = manner.check + (tutor.doubt if result in believed else tutor.notice)
        once = brute_force(tutor, problem, style, done + 1, result)
        twice = sum(c * brute_force(tutor, problem, style, done + 1, r) for r, c in chances.items())
        total += (1 - away) * chance * ((1 - again) * once + again * twice)
    for step in range(2, 10) if away else ():
        for there, going in outcomes(tutor, problem, "+", value, step)[0].items():
            for here, coming in outcomes(tutor, problem, "-", there, step)[0].items():
                total += (
                    away / 8 * going * coming * brute_force(tutor, problem, style, done, here, detour=False)
                )
    return total


@pytest.mark.parametrize(
    ("tutor", "problem", "style"),
    [
        (MID, Problem(13, "*+", (7, 5), modulus=20), "terse"),
        (MID, Problem(13, "*+", (7, 5), modulus=20), "careful"),
        (MID, Problem(13, "*", (7,), modulus=20), "verbose"),
        (MID, Problem(104, "-", (8,), modulus=130), "verbose"),
        (STEADY, Problem(4, "-*", (8, 3), modulus=30), "verbose"),
        (STEADY, PROBLEM, "careful"),
    ],
)
def test_values_are_those_of_brute_force(tutor: SecondTutor, problem: Problem, style: str) -> None:
    opening = {"terse": f"{problem.number(problem.start)}", "careful": "so ", "verbose": "take "}[style]
    expected = brute_force(tutor, problem, style, 0, problem.start, detour=False)
    assert prefix_value(tutor, problem, opening) == pytest.approx(expected, abs=1e-12)


def test_before_the_first_line_the_value_is_the_mean_over_styles_and_detours() -> None:
    for tutor, problem in ((MID, Problem(13, "*", (7,), modulus=20)), (STEADY, Problem(4, "-*", (8, 3), 30))):
        expected = sum(
            style.share * brute_force(tutor, problem, name, 0, problem.start)
            for name, style in STYLES.items()
        )
        assert prefix_value(tutor, problem, "") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "so 13*7=1",
        "so 13*7=11\n",
        "aside 13+4",
        "take 13, then *7, so 13*7=21\n",
        "13*7=11\nwait, 13*7=",
        "aside 13+4=17\n",
        "aside 13+1=14\n",
        "aside 13+0=13\n",
    ],
)
def test_the_value_of_a_prefix_is_the_mean_over_the_characters_that_may_follow(prefix: str) -> None:
    """A tutor that goes on reaches a longer prefix with the chance that lines which begin so have."""
    table = value_table(MID, Problem(13, "*+", (7, 5), modulus=130))
    following: dict[str, float] = defaultdict(float)
    *_, opened = prefix.split("\n")
    whole = prefix[: len(prefix) - len(opened)]
    for text, chance, _ in table.lines_after(whole):
        if text.startswith(opened):
            following[(text + "\n")[len(opened)]] += chance
    mean = sum(chance * table.of_prefix(prefix + character) for character, chance in following.items())
    assert table.of_prefix(prefix) == pytest.approx(mean / sum(following.values()), abs=1e-12)


def test_a_correction_gives_back_what_a_slip_took() -> None:
    problem = Problem(63, "*+", (7, 5), modulus=130)
    slipped, corrected = step_values(MID, problem, "63*7=61\nwait, 63*7=51\n51+5=56\n#56")[:2]
    (right,) = step_values(MID, problem, "63*7=51\n")
    assert slipped < 0.3 < right
    assert corrected > right > slipped  # right is still doubted now and then


def test_an_answer_settles_the_value_and_what_cannot_be_gone_on_from_has_none() -> None:
    values = step_values(MID, PROBLEM, "13*7=11\nwhat?\n11+5=16\n#08")
    assert [math.isnan(value) for value in values] == [False, True, True, True]
    assert step_values(MID, PROBLEM, "13*7=11\n11+5=16\n16-8=08\n#08")[-1] == 1.0
    assert step_values(MID, PROBLEM, "13*7=11\n11+5=16\n16-8=08\n#09")[-1] == 0.0
    assert prefix_value(MID, PROBLEM, "13*7=11\n11+5=16\n16-8=08\n#0") == 1.0
    assert math.isnan(prefix_value(MID, PROBLEM, "13*7=11\n#08\nso"))


def test_a_line_that_the_tutor_would_not_write_counts_for_what_it_states() -> None:
    problem = Problem(63, "*+", (7, 5), modulus=130)
    miscopied = prefix_value(MID, problem, "64*7=51\n")
    assert miscopied == pytest.approx(prefix_value(MID, problem, "64*7=51"))
    assert 0 < miscopied < prefix_value(MID, problem, "63*7=51\n")
