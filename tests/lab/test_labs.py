from __future__ import annotations

import pytest

from stepcredit.errors import UserError
from stepcredit.lab.labs import LABS, SECOND, Lab, lab_named
from stepcredit.lab.second.tutor import SECOND_TUTORS
from stepcredit.lab.task import draw_problems


@pytest.mark.parametrize("lab", LABS.values(), ids=LABS)
def test_a_tokenizer_knows_all_that_its_tutors_write(lab: Lab) -> None:
    tokenizer = lab.tokenizer()
    unknown = tokenizer.convert_tokens_to_ids("<|unknown|>")
    for domain in lab.domains.values():
        problems = draw_problems("train", seed=1, count=20, domain=domain)
        for problem, response in zip(problems, lab.tutor("mid").write(problems, seed=2), strict=True):
            text = problem.text + response
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert unknown not in ids
            assert tokenizer.decode(ids) == text
            assert len(ids) <= lab.context_length


def test_a_word_of_the_second_lab_is_one_token_and_an_unknown_one_too() -> None:
    tokenizer = SECOND.tokenizer()
    tokens = tokenizer("take 63, then *7, so 63*7 maybe", add_special_tokens=False).tokens()
    assert "|".join(tokens) == "take| |6|3|,| then| |*|7|,| so| |6|3|*|7|<|unknown|>"


def test_responses_to_a_problem_vary_threefold_in_length() -> None:
    (problem,) = draw_problems("test", seed=3, count=1, domain=SECOND.standard)
    lengths = sorted(map(len, SECOND_TUTORS["mid"].write([problem] * 64, seed=4)))
    assert lengths[60] > 3 * lengths[3]


def test_labs_and_tutors_are_found_by_name() -> None:
    assert lab_named("lab2") is SECOND
    assert SECOND.tutor("strong") is SECOND_TUTORS["strong"]
    with pytest.raises(UserError, match=r"no lab 'lab3'.*[Uu]se lab, lab2"):
        lab_named("lab3")
    with pytest.raises(UserError, match=r"no tutor 'perfect'.*[Uu]se weak, mid, strong"):
        SECOND.tutor("perfect")
