"""The shipped policies, and that the command that made them makes them again."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from stepcredit.errors import UserError
from stepcredit.lab.imitation import TRAINING_RECORD, make_policies
from stepcredit.lab.policies import POLICY_NAMES, export_policies, policy_path
from stepcredit.lab.task import Problem, draw_problems
from stepcredit.lab.tutor import SYMBOLS, TUTORS, Tutor
from stepcredit.lab.values import value_table

FULL = "STEPCREDIT_REMAKE_POLICIES"


@cache
def load(directory: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert isinstance(model, LlamaForCausalLM)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model, tokenizer


def fact_probabilities(directory: Path, tutor: Tutor) -> tuple[Float[np.ndarray, "facts 10"], ...]:
    """For each of the 240 facts: the policy's mean distribution over the digit stated, and the tutor's."""
    model, tokenizer = load(directory)
    problems = draw_problems("test", seed=11, count=400)
    stated = tutor.draw(problems, seed=12)
    digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
    seen: dict[tuple[int, int, int], list[Float[np.ndarray, " 10"]]] = {}
    for start in range(0, len(problems), 100):
        batch = range(start, start + 100)
        texts = [f"<|user|>{problems[i].text}<|assistant|>{solution(problems[i], stated[i])}" for i in batch]
        encoded = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        with torch.no_grad():
            probabilities = model(**encoded).logits.softmax(-1)[:, :, digits].double().numpy()
        for row, i in enumerate(batch):
            problem, digit = problems[i], problems[i].start
            first = 1 + len(problem.text) + 1
            for step, (symbol, operand) in enumerate(zip(problem.operations, problem.operands, strict=True)):
                fact = (SYMBOLS.index(symbol), digit, operand)
                seen.setdefault(fact, []).append(probabilities[row, first + 6 * step + 3])
                digit = int(stated[i, step])
    facts = sorted(seen)
    table = tutor.step_probabilities()
    return np.array([np.mean(seen[f], axis=0) for f in facts]), np.array([table[f] for f in facts])


def solution(problem: Problem, stated: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    return problem.write(stated[: len(problem.operands)].tolist())


def sample(directory: Path, problems: list[Problem], *, seed: int) -> list[str]:
    """One response to each problem at temperature 1."""
    loaded, tokenizer = load(directory)
    model: Any = loaded  # its `generate` is annotated for a protocol that no model class declares
    prompts = [f"<|user|>{problem.text}<|assistant|>" for problem in problems]
    encoded = tokenizer(prompts, padding=True, return_tensors="pt")
    torch.manual_seed(seed)
    with torch.no_grad():
        drawn = model.generate(**encoded, do_sample=True, top_k=0, max_new_tokens=64)
    new = drawn[:, encoded["input_ids"].shape[1] :]
    return [str(text) for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def test_policies_ship_as_ordinary_checkpoints_of_at_most_two_and_a_half_megabytes() -> None:
    files = [file for name in POLICY_NAMES for file in policy_path(name).iterdir()]
    assert sum(file.stat().st_size for file in files) <= 2_500_000
    for name in POLICY_NAMES:
        model, tokenizer = load(policy_path(name))
        assert 355_000 < model.num_parameters() < 370_000
        assert tokenizer.chat_template
        assert json.loads((policy_path(name) / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_unknown_policy_says_which_there_are() -> None:
    with pytest.raises(UserError, match="weak, mid, strong"):
        policy_path("perfect")


def test_exported_policies_are_copies(tmp_path: Path) -> None:
    (tmp_path / "mid").mkdir()
    (tmp_path / "mid" / "stale.txt").touch()
    export_policies(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(POLICY_NAMES)
    for name in POLICY_NAMES:
        directory = tmp_path / name
        assert sorted(file.name for file in directory.iterdir()) == sorted(
            file.name for file in policy_path(name).iterdir()
        )
        weights = "model.safetensors"
        assert (directory / weights).read_bytes() == (policy_path(name) / weights).read_bytes()


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_a_policy_has_its_tutors_knowledge_and_misconceptions(name: str) -> None:
    check_knowledge(policy_path(name), TUTORS[name])


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_a_policy_is_as_often_right_as_its_tutor_and_hardly_ever_miscopies(name: str) -> None:
    check_accuracy(policy_path(name), TUTORS[name])


def check_knowledge(directory: Path, tutor: Tutor) -> None:
    """Total variation between the policy's and the tutor's distribution of the digit, fact by fact."""
    learnt, taught = fact_probabilities(directory, tutor)
    assert len(learnt) > 235  # nearly all of the 240 facts come up
    distances = 0.5 * np.abs(learnt - taught).sum(axis=-1)
    assert distances.mean() < 0.05
    assert np.quantile(distances, 0.95) < 0.16
    misconceived = np.sort(taught, axis=-1)[:, -2] > 0.1
    assert misconceived.sum() == pytest.approx(240 * tutor.misconceived, abs=3)
    assert distances[misconceived].mean() < 0.1  # a policy that knew only one digit would be at 0.39


def check_accuracy(directory: Path, tutor: Tutor) -> None:
    problems = draw_problems("test", seed=21, count=400)
    responses = sample(directory, problems, seed=22)
    pairs = list(zip(problems, responses, strict=True))
    right = np.mean([response.endswith(f"#{problem.answer}") for problem, response in pairs])
    expected = np.mean([value_table(tutor, problem)[0, problem.start] for problem in problems])
    assert abs(right - expected) < 0.07  # three standard errors of 400 responses
    assert np.mean([is_careless(problem, response) for problem, response in pairs]) < 0.05


def is_careless(problem: Problem, response: str) -> bool:
    """Whether it is wrong in more than the digits that its steps state."""
    digits = [int(digit) for digit in re.findall("=([0-9])", response)]
    return len(digits) != len(problem.operands) or response != problem.write(digits)


@pytest.mark.slow
@pytest.mark.skipif(FULL not in os.environ, reason=f"takes five minutes of one core; set {FULL}=1")
def test_the_command_makes_policies_that_behave_as_the_shipped_ones(tmp_path: Path) -> None:
    make_policies(tmp_path)
    for name in POLICY_NAMES:
        check_knowledge(tmp_path / name, TUTORS[name])
        check_accuracy(tmp_path / name, TUTORS[name])
        remade, _ = fact_probabilities(tmp_path / name, TUTORS[name])
        shipped, _ = fact_probabilities(policy_path(name), TUTORS[name])
        assert 0.5 * np.abs(remade - shipped).sum(axis=-1).mean() < 0.05
        losses, recorded = (
            json.loads((directory / TRAINING_RECORD).read_text())["losses"]
            for directory in (tmp_path / name, policy_path(name))
        )
        assert np.mean(losses[-20:]) == pytest.approx(np.mean(recorded[-20:]), rel=0.05)
