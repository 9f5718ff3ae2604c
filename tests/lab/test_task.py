from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.errors import DataError, UserError
from stepcredit.lab.task import (
    ANSWER_PATTERN,
    DOMAINS,
    SPLIT_SHARES,
    STANDARD,
    Domain,
    Problem,
    draw_problems,
    make_prompts,
    parse_problem,
    split_of,
)

EXAMPLE = Problem(7, "*+-+", (8, 5, 3, 9))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    modulus = draw(st.integers(3, 10))
    operations = draw(st.text("+-*<>", min_size=1, max_size=9))
    operands = draw(st.lists(st.integers(0, modulus - 1), min_size=len(operations), max_size=len(operations)))
    return Problem(draw(st.integers(0, modulus - 1)), operations, tuple(operands), modulus)


def test_a_problem_is_solved_left_to_right_on_last_digits() -> None:
    assert EXAMPLE.text == "7*8+5-3+9="
    assert EXAMPLE.results == (6, 1, 8, 7)  # 56, 6+5=11, 1-3=-2, 8+9=17
    assert EXAMPLE.answer == "7"
    assert EXAMPLE.solution == "7*8=6\n6+5=1\n1-3=8\n8+9=7\n#7"


def test_an_error_is_carried_forward() -> None:
    assert EXAMPLE.write([5, 0, 7, 6]) == "7*8=5\n5+5=0\n0-3=7\n7+9=6\n#6"


def test_another_base_is_marked_and_comparisons_keep_the_larger_or_smaller_digit() -> None:
    problem = Problem(3, "*><", (4, 3, 2), modulus=5)
    assert problem.text == "5:3*4>3<2="
    assert problem.solution == "3*4=2\n2>3=3\n3<2=2\n#2"


@given(problems())
def test_a_problem_can_be_read_from_its_text(problem: Problem) -> None:
    assert parse_problem(problem.text) == problem
    assert parse_problem([{"role": "user", "content": problem.text}]) == problem


@given(problems())
def test_left_to_right_agrees_with_exact_integers(problem: Problem) -> None:
    digit = problem.start
    for symbol, operand in zip(problem.operations, problem.operands, strict=True):
        match symbol:
            case "+":
                digit = (digit + operand) % problem.modulus
            case "-":
                digit = (digit + problem.modulus - operand) % problem.modulus
            case "*":
                digit = sum([digit] * operand) % problem.modulus
            case ">":
                digit = sorted((digit, operand))[1]
            case _:
                digit = sorted((digit, operand))[0]
    assert problem.answer == str(digit)
    assert re.findall(ANSWER_PATTERN, problem.solution, re.MULTILINE) == [problem.answer]


@pytest.mark.parametrize(
    "text", ["", "7*8", "7*8+=", "12+3=", "7/2=", "x", "7*8=6", "5:7*3=", "2:1+1=", "٣+2="]
)
def test_what_is_no_problem_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=re.escape(repr(text))):
        parse_problem(text)


def test_drawn_problems_are_of_their_domain_and_all_of_it_comes_up() -> None:
    drawn = draw_problems("train", seed=3, count=4000)
    assert len(set(drawn)) == 4000
    assert {problem.start for problem in drawn} == set(range(10))
    assert set(itertools.chain(*(p.operands for p in drawn))) == set(range(2, 10))
    assert set(itertools.chain(*(p.operations for p in drawn))) == set("+-*")
    lengths = Counter(len(problem.operands) for problem in drawn)
    assert sorted(lengths) == [4, 5, 6, 7]
    assert all(abs(count / 4000 - 0.25) < 0.035 for count in lengths.values())  # five standard errors


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=list(DOMAINS))
def test_no_seed_lets_one_split_leak_into_another(domain: Domain) -> None:
    drawn = {
        split: {p for seed in (0, 1) for p in draw_problems(split, seed=seed, count=500, domain=domain)}
        for split in SPLIT_SHARES
    }
    for first, second in itertools.combinations(drawn.values(), 2):
        assert not first & second
    assert all(split_of(p) == split for split, problems_ in drawn.items() for p in problems_)


def test_splits_have_their_shares() -> None:
    every = [p for split in SPLIT_SHARES for p in draw_problems(split, seed=0, count=200)]
    assert {split_of(p) for p in every} == set(SPLIT_SHARES)
    operands = itertools.product(range(2, 10), repeat=4)
    shares = Counter(split_of(Problem(1, "+-*+", digits)) for digits in operands)
    for split, share in SPLIT_SHARES.items():
        assert abs(shares[split] / 4096 - share / 100) < 0.04


def test_the_first_problems_do_not_depend_on_how_many_are_drawn_and_another_seed_gives_others() -> None:
    assert draw_problems("test", seed=0, count=50) == draw_problems("test", seed=0, count=3000)[:50]
    assert not set(draw_problems("test", seed=0, count=50)) & set(draw_problems("test", seed=1, count=50))


def test_prompts_have_ids_and_answers() -> None:
    prompts = make_prompts("test", seed=0, count=13)
    assert prompts[12].id == "lab-test-000012"
    assert all(prompt.answer == parse_problem(prompt.prompt).answer for prompt in prompts)
    other = make_prompts("train", seed=0, count=1, domain=DOMAINS["base5"])
    assert other[0].id == "lab-train-base5-000000"


def test_too_small_a_domain_says_so() -> None:
    tiny = Domain(name="tiny", operations="+", modulus=3, fewest=1, most=1)
    with pytest.raises(UserError, match="found only"):
        draw_problems("train", seed=0, count=5, domain=tiny)


def test_an_unknown_split_says_which_there_are() -> None:
    with pytest.raises(UserError, match="policy, train, development, test"):
        draw_problems("dev", seed=0, count=1)


@pytest.mark.parametrize(
    "change", [{"operations": "+/"}, {"operations": ""}, {"operations": "++"}, {"modulus": 11}, {"fewest": 8}]
)
def test_an_impossible_domain_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match="standard"):
        dataclasses.replace(STANDARD, **change)  # type: ignore[arg-type]
