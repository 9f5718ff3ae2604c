from __future__ import annotations

import numpy as np
import pytest

from stepcredit.errors import UserError
from stepcredit.lab.labs import FIRST
from stepcredit.lab.task import DOMAINS, Problem, draw_problems
from stepcredit.lab.tutor import MID, STRONG, SYMBOLS, TUTORS, WEAK, Tutor, misconceptions


def test_the_standard_facts_are_240_and_the_tutors_misconceive_40_30_and_10_per_cent_of_them() -> None:
    occurring = misconceptions().rank[:3] < 1000
    assert SYMBOLS[:3] == "+-*"
    assert occurring.sum() == 240
    for tutor, count in ((WEAK, 96), (MID, 72), (STRONG, 24)):
        strengths = tutor.strengths()[:3]
        assert (strengths > 0).sum() == count
        assert strengths[strengths > 0].min() >= 0.3
        assert strengths.max() <= 0.8


def test_misconceptions_are_nested() -> None:
    weak, mid, strong = (tutor.strengths() for tutor in (WEAK, MID, STRONG))
    assert np.all((mid == 0) | (mid == weak))
    assert np.all((strong == 0) | (strong == mid))


@pytest.mark.parametrize("modulus", [3, 5, 10])
def test_a_wrong_digit_is_another_digit_of_the_base(modulus: int) -> None:
    facts = misconceptions(modulus)
    assert np.all(facts.wrong != facts.right)
    assert facts.wrong.min() >= 0
    assert facts.wrong.max() < modulus


def test_a_sound_fact_and_a_misconceived_one_have_the_distribution_of_the_slip_rule() -> None:
    strengths = MID.strengths()
    misconceived = next(index for index in np.ndindex(*strengths.shape) if strengths[index] > 0)
    sound = next(index for index in np.ndindex(*strengths.shape) if index[2] >= 2 and strengths[index] == 0)
    facts, table = misconceptions(), MID.step_probabilities()
    expected = np.full(10, 0.0015)  # a slip of 0.015 over ten digits
    expected[facts.right[sound]] += 0.985
    np.testing.assert_allclose(table[sound], expected, atol=1e-12)
    expected = np.full(10, 0.0015)
    expected[facts.wrong[misconceived]] += 0.985 * strengths[misconceived]
    expected[facts.right[misconceived]] += 0.985 * (1 - strengths[misconceived])
    np.testing.assert_allclose(table[misconceived], expected, atol=1e-12)
    np.testing.assert_allclose(table.sum(axis=-1), 1.0, atol=1e-12)


def test_what_is_written_has_the_stated_step_probabilities() -> None:
    tutor = Tutor("careless", misconceived=0.5, slip=0.2)
    problem = Problem(4, "*", (7,))
    drawn = tutor.draw([problem] * 40_000, seed=0)[:, 0]
    expected = tutor.step_probabilities()[SYMBOLS.index("*"), 4, 7]
    frequencies = np.bincount(drawn, minlength=10) / 40_000
    standard_errors = np.sqrt(expected * (1 - expected) / 40_000)
    assert np.all(np.abs(frequencies - expected) < 4.5 * standard_errors)


def test_errors_are_only_in_what_steps_state_and_are_carried_forward() -> None:
    problems = draw_problems("train", seed=0, count=300)
    for problem, response in zip(problems, WEAK.write(problems, seed=1), strict=True):
        *lines, _ = response.split("\n")
        assert response == problem.write([int(line[-1]) for line in lines])


@pytest.mark.parametrize(("name", "accuracy"), [("weak", 0.30), ("mid", 0.40), ("strong", 0.71)])
def test_the_tutors_are_as_often_right_as_the_world_wants(name: str, accuracy: float) -> None:
    problems = draw_problems("train", seed=5, count=4000)
    responses = TUTORS[name].write(problems, seed=2)
    right = [response.endswith(f"#{p.answer}") for p, response in zip(problems, responses, strict=True)]
    flawed = [r for r, p, text in zip(right, problems, responses, strict=True) if text != p.solution]
    assert np.mean(right) == pytest.approx(accuracy, abs=0.03)
    assert np.mean(flawed) == pytest.approx(0.10, abs=0.03)  # right all the same, with a wrong step


def test_a_seed_gives_the_same_again_and_another_one_does_not() -> None:
    problems = draw_problems("train", seed=0, count=30, domain=DOMAINS["base5"])
    assert MID.write(problems, seed=4) == MID.write(problems, seed=4)
    assert MID.write(problems, seed=4) != MID.write(problems, seed=5)


def test_nothing_is_written_for_no_problems_and_bases_do_not_mix() -> None:
    assert MID.write([], seed=0) == []
    with pytest.raises(ValueError, match="several moduli"):
        MID.write([Problem(1, "+", (2,)), Problem(1, "+", (2,), modulus=5)], seed=0)


def test_an_unknown_tutor_says_which_there_are() -> None:
    assert FIRST.tutor("strong") is STRONG
    with pytest.raises(UserError, match="weak, mid, strong"):
        FIRST.tutor("perfect")
