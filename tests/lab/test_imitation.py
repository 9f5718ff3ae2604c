from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from stepcredit.lab.imitation import (
    RECIPES,
    TRAINING_RECORD,
    batches,
    new_model,
    response_loss,
    save_policy,
    schedule,
    train_policy,
)
from stepcredit.lab.labs import FIRST, LABS, SECOND, Lab
from stepcredit.lab.policies import POLICY_NAMES, policy_path
from stepcredit.lab.task import parse_problem, split_of
from stepcredit.lab.tokenizer import make_tokenizer


def test_the_loss_is_the_mean_over_response_tokens_and_end_of_turn() -> None:
    model, tokenizer = new_model(0), make_tokenizer()
    pairs = [("7*8=", "7*8=6\n#6"), ("1+2+3=", "1+2=3\n3+3=6\n#6")]
    losses = []
    for prompt, response in pairs:
        text = f"<|user|>{prompt}<|assistant|>{response}<|end|>"
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            log_probs = model(input_ids=ids).logits[0].double().log_softmax(-1)
        first = 1 + len(prompt) + 1
        losses += [-float(log_probs[place - 1, ids[0, place]]) for place in range(first, ids.shape[1])]
    assert len(losses) == (5 + 1 + 2 + 1) + (6 + 6 + 2 + 1)
    assert response_loss(model, tokenizer, pairs).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_policies_learn_from_their_own_split_and_see_all_domains() -> None:
    recipe = dataclasses.replace(RECIPES["lab"]["mid"], num_steps=3)
    steps = list(batches(recipe))
    assert [len(step) for step in steps] == [128 + 16 + 16] * 3
    problems = [parse_problem(prompt) for step in steps for prompt, _ in step]
    assert {split_of(problem) for problem in problems} == {"policy"}
    assert sum(problem.modulus == 5 for problem in problems) == 3 * 16
    assert sum(not set(problem.operations).isdisjoint("<>") for problem in problems) == 3 * 16


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    shares = [schedule(step, 200) for step in range(200)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == shares[9] > 0.99
    assert shares[100] == pytest.approx(0.5)
    assert shares[-1] < 1e-3


def test_a_saved_policy_can_be_read_by_everybody(tmp_path: Path) -> None:
    save_policy(new_model(0), tmp_path)
    assert {oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == {"0o644"}


@pytest.mark.parametrize("lab", LABS.values(), ids=LABS)
@pytest.mark.parametrize("name", POLICY_NAMES)
def test_a_shipped_policy_was_made_by_the_recipe_as_it_stands(name: str, lab: Lab) -> None:
    record = json.loads((policy_path(name, lab.name) / TRAINING_RECORD).read_text())
    recipe = RECIPES[lab.name][name]
    taught = dataclasses.asdict(recipe) | {"tutor": dataclasses.asdict(lab.tutor(recipe.tutor))}
    assert record["recipe"] == json.loads(json.dumps(taught))
    assert len(record["losses"]) == recipe.num_steps


def test_each_lab_teaches_its_own_problems() -> None:
    recipe = dataclasses.replace(RECIPES["lab2"]["mid"], num_steps=2)
    steps = list(batches(recipe, SECOND))
    assert [len(step) for step in steps] == [80 + 5 + 5] * 2
    problems = [parse_problem(prompt) for step in steps for prompt, _ in step]
    assert {split_of(problem) for problem in problems} == {"policy"}
    assert sum(problem.modulus == 50 for problem in problems) == 2 * 5
    assert {problem.modulus for problem in problems} == {50, 130}


@pytest.mark.long
@pytest.mark.parametrize(("name", "lab"), [("mid", FIRST), ("strong", FIRST), ("mid", SECOND)])
def test_the_first_steps_of_the_command_have_the_recorded_losses(name: str, lab: Lab) -> None:
    """The same weights, data and optimiser: within 2% over six steps, whatever the machine's rounding."""
    recipe = RECIPES[lab.name][name]
    if recipe.start_from is None:
        model = new_model(recipe.seed, lab)
    else:
        path = policy_path(recipe.start_from, lab.name)
        model = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32)
    losses = train_policy(recipe, model, lab, stop_after=6)
    recorded = json.loads((policy_path(name, lab.name) / TRAINING_RECORD).read_text())["losses"][:6]
    np.testing.assert_allclose(losses, recorded, rtol=0.02)
