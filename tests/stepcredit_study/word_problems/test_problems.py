from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from stepcredit.grading.reasoning_gym import FIELD, make_task
from stepcredit_study.word_problems.practice import practice_lines
from stepcredit_study.word_problems.problems import (
    ANSWER_MARK,
    LONGEST_SOLUTION,
    SPLITS,
    is_admissible,
    new_templates,
    problems,
)
from stepcredit_study.word_problems.slips import equations


def first(name: str, count: int) -> list[object]:
    split = next(split for split in SPLITS if split.name == name)
    return [*islice(problems(split), count)]


def test_fifteen_templates_are_kept_apart() -> None:
    assert sorted(new_templates()) == [0, 1, 28, 29, 30, 34, 39, 40, 41, 49, 55, 56, 60, 66, 67]
    for split in SPLITS:
        is_new = {
            problem.prompt.extras["template"] in new_templates() for problem in islice(problems(split), 40)
        }
        assert is_new == {split.new}


def test_no_question_is_in_two_splits_and_the_first_ones_are_always_the_same() -> None:
    questions = [problem.question for split in SPLITS for problem in islice(problems(split), 700)]
    assert len(questions) == len(set(questions))
    assert len(questions) == 600 + 600 + 100 + 700 + 700
    assert first("train", 5) == first("train", 50)[:5]


def test_problems_are_small_short_and_stated_with_their_answer() -> None:
    for split in SPLITS:
        for problem in islice(problems(split), 30):
            assert len(problem.solution) <= LONGEST_SOLUTION
            assert problem.solution.endswith(f"\n{ANSWER_MARK}{problem.prompt.answer}")
            assert problem.question.endswith("Give the result as your final answer. Do not include units.")


def test_a_prompt_says_which_problem_of_the_package_it_is() -> None:
    for split in SPLITS[:2]:
        for problem in islice(problems(split), 10):
            prompt = problem.prompt
            place = dict(prompt.extras[FIELD])
            item = make_task(**{name: place[name] for name in ("task", "seed", "size", "settings")})
            assert item.task_indices[place["index"]] == prompt.extras["template"]
            assert item[place["index"]]["question"].strip() == prompt.prompt


@pytest.mark.parametrize(
    ("question", "answer", "solution", "admissible"),
    [
        ("He has 3 and 4.", "7", "3 + 4 = 7\n#### 7", True),
        ("He has 3 and 200.", "7", "3 + 4 = 7\n#### 7", False),
        ("He has 3 and 4.", "7", "3 + 4 = 7.0\n#### 7", False),
        ("He has 3 and 1,004.", "7", "3 + 4 = 7\n#### 7", False),
        ("He has 3 and 4.", "7", "3 + 4 = 8\n#### 8", False),
        ("He has 3 and 4.", "7", "word " * 50 + "\n#### 7", False),
    ],
)
def test_large_fractional_and_long_ones_are_left_out(
    question: str, answer: str, solution: str, admissible: bool
) -> None:
    assert is_admissible(question, answer, solution) is admissible


def test_practice_is_right_small_and_of_all_four_kinds() -> None:
    lines = practice_lines(Random(3), 200)
    for line in lines:
        (equation,) = equations(line)
        assert equation.is_right
        assert 0 <= equation.stated < 200
        assert equation.stated.denominator == 1
        assert "/" not in line or equation.operands[0] == equation.stated * equation.operands[1]
    for sign in "+-*/x":
        assert any(sign in line for line in lines)
    assert practice_lines(Random(3), 200) == lines
