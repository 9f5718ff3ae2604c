"""The second lab's shipped policies write as their tutors do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepcredit.lab.labs import SECOND
from stepcredit.lab.policies import POLICY_NAMES, policy_path
from stepcredit.lab.second.lines import State, after, parse_answer, parse_line, start
from stepcredit.lab.second.tutor import STYLES, SecondTutor
from stepcredit.lab.second.values import value_table
from stepcredit.lab.task import Problem, draw_problems


def sample(name: str, problems: list[Problem], *, seed: int) -> list[str]:
    """One response to each problem at temperature 1."""
    model: Any = AutoModelForCausalLM.from_pretrained(policy_path(name, "lab2"), dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(policy_path(name, "lab2"))
    prompts = [f"<|user|>{problem.text}<|assistant|>" for problem in problems]
    encoded = tokenizer(prompts, padding=True, return_tensors="pt")
    torch.manual_seed(seed)
    with torch.no_grad():
        drawn = model.generate(**encoded, do_sample=True, top_k=0, max_new_tokens=150)
    new = drawn[:, encoded["input_ids"].shape[1] :]
    return [str(text) for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_a_policy_is_about_as_often_right_as_its_tutor_and_keeps_to_the_form(name: str) -> None:
    problems = draw_problems("test", seed=21, count=200, domain=SECOND.standard)
    pairs = list(zip(problems, sample(name, problems, seed=22), strict=True))
    right = np.mean([response.endswith(f"#{problem.answer}") for problem, response in pairs])
    tutor: Any = SECOND.tutor(name)
    expected = np.mean([value_table(tutor, problem).of_prefix("") for problem in problems])
    assert abs(right - expected) < 0.1  # three standard errors of 200 responses
    assert np.mean([is_careless(tutor, problem, response) for problem, response in pairs]) < 0.08


def is_careless(tutor: SecondTutor, problem: Problem, response: str) -> bool:
    """Whether it is wrong in more than the numbers that its lines state."""
    *lines, answer = response.split("\n")
    state: State | None = start(problem)
    for text in lines:
        line = parse_line(text, problem)
        if state is None or line is None:
            return True
        moves = (move for style in STYLES for move in tutor.moves(problem, replace(state, style=style)))
        if line not in [replace(move.line, result=line.result) for move in moves]:
            return True
        state = after(problem, state, line)
    return state is None or state.done < len(problem.operands) or parse_answer(answer, problem) != state.value


def test_a_policy_writes_in_all_styles_and_all_forms() -> None:
    problems = draw_problems("test", seed=23, count=100, domain=SECOND.standard)
    text = "\n".join(sample("mid", problems, seed=24))
    for opening in ("so ", "take ", "wait, ", "check ", "aside ", "back "):
        assert f"\n{opening}" in text


def test_the_policies_are_small_checkpoints() -> None:
    files = [file for name in POLICY_NAMES for file in policy_path(name, "lab2").iterdir()]
    assert sum(file.stat().st_size for file in files) <= 2_500_000
