from __future__ import annotations

import numpy as np
import pytest

from stepcredit.lab.labs import SECOND
from stepcredit.lab.second.lines import State, after, parse_line, start
from stepcredit.lab.second.oracle import check_steps
from stepcredit.lab.second.tutor import SECOND_TUTORS, STYLES, SecondTutor
from stepcredit.lab.second.values import value_table
from stepcredit.lab.task import OPERATIONS, Problem, draw_problems
from stepcredit.lab.tutor import SYMBOLS, misconceptions

MID = SECOND_TUTORS["mid"]
FLAWLESS = SecondTutor("flawless", misconceived=0.0, slip=0.0, notice=0.5, doubt=0.2)


def test_results_are_slipped_on_misconceived_or_right() -> None:
    table = MID.results(20)
    np.testing.assert_allclose(table.sum(axis=-1), 1.0, atol=1e-12)
    facts = misconceptions()
    fact = tuple(np.argwhere((facts.rank < 20) & (facts.wrong != facts.right))[0])
    operation, digit, operand = (int(place) for place in fact)
    shift = int(facts.wrong[fact] - facts.right[fact]) % 10
    left = digit + 10
    value = OPERATIONS[SYMBOLS[operation]](left, operand) % 20
    strength, expected = float(facts.strength[fact]), np.zeros(20)
    expected[value] = (1 - MID.slip) * (1 - strength)
    expected[value - value % 10 + (value + shift) % 10] += (1 - MID.slip) * strength
    for slip in (1, -1, 10, -10):
        expected[(value + slip) % 20] += MID.slip / 4
    np.testing.assert_allclose(table[operation, left, operand], expected, atol=1e-12)


def test_what_a_tutor_takes_for_right_is_no_slip() -> None:
    slipped = MID.slipped(20)
    table = MID.results(20)
    certain = SecondTutor("certain", MID.misconceived, 0.0, MID.notice, MID.doubt).results(20)
    assert not slipped[certain > 0].any()
    assert slipped[(table > 0) & (certain == 0)].all()


@pytest.mark.parametrize(
    "state",
    [
        State(0, 63),
        State(1, 61, "careful", "stated", 63),
        State(0, 63, "verbose"),
        State(0, 67, "verbose", "away", 4),
    ],
)
def test_what_may_come_next_has_probability_one_in_all(state: State) -> None:
    problem = Problem(63, "*+", (7, 5), modulus=130)
    assert sum(move.probability for move in MID.moves(problem, state)) == pytest.approx(1.0)


def test_slips_are_noticed_and_misconceptions_are_not() -> None:
    problem = Problem(63, "+", (2,), modulus=130)
    facts = misconceptions()
    everything = SecondTutor("all", misconceived=1.0, slip=0.1, notice=0.4, doubt=0.1)
    shift = int(facts.wrong[0, 3, 2] - facts.right[0, 3, 2]) % 10
    believed = 60 + (5 + shift) % 10
    slipped = 75 if believed != 75 else 55
    for value, chance in ((65, 0.1), (believed, 0.1), (slipped, 0.4)):
        assert everything.again(problem, State(1, value, "terse", "stated", 63)) == {"wait": chance}


def test_a_flawless_tutor_is_always_right_whatever_it_writes() -> None:
    problems = draw_problems("train", seed=3, count=40, domain=SECOND.standard)
    responses = FLAWLESS.write(problems, seed=4)
    for problem, response in zip(problems, responses, strict=True):
        assert all(label.label == 1 for label in check_steps(problem, response)), response
        assert response.endswith(f"#{problem.answer}")
    text = "\n".join(responses)
    assert all(word in text for word in ("so ", "take ", "wait, ", "check ", "aside ", "back "))


def test_a_tutor_is_as_often_right_as_its_value_says_and_writes_each_style_as_often_as_it_should() -> None:
    problem = Problem(63, "*+-", (7, 5, 8), modulus=130)
    responses = MID.write([problem] * 800, seed=5)
    right = np.mean([response.endswith(f"#{problem.answer}") for response in responses])
    assert abs(right - value_table(MID, problem).of_prefix("")) < 0.053  # three standard errors
    terse = np.mean([response[0].isdigit() for response in responses])
    assert abs(terse - STYLES["terse"].share) < 0.053


def test_a_tutor_writes_the_same_from_the_same_seed() -> None:
    problems = draw_problems("train", seed=3, count=5, domain=SECOND.standard)
    assert MID.write(problems, seed=[1, 2]) == MID.write(problems, seed=[1, 2]) != MID.write(problems, seed=3)


def test_a_tutor_goes_on_from_every_line_that_it_writes() -> None:
    for problem in draw_problems("train", seed=6, count=20, domain=SECOND.standard):
        *lines, _ = MID.write([problem], seed=7)[0].split("\n")
        state: State | None = start(problem)
        for text in lines:
            line = parse_line(text, problem)
            assert line is not None
            assert state is not None
            state = after(problem, state, line)
        assert state is not None
        assert state.done == len(problem.operands)
