from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from stepcredit.checkpoints import load_tokenizer
from stepcredit_study.word_problems.fine_tuning import (
    CHAT_TEMPLATE,
    FineTuning,
    Recipe,
    run,
    steps_of_sequences,
)
from stepcredit_study.word_problems.sources import POLICY, Templates

RECIPE = Recipe(rank=2, first_layer=1, solutions=2, practice=1, practice_lines=3, warmup=2)


def tune(model: Path, out: Path, steps: int, recipe: Recipe = RECIPE) -> None:
    run(model, out, recipe, steps=steps, policy_every=2, minutes=5.0)


def first_step(tokenizer: Any) -> Any:
    return next(steps_of_sequences(tokenizer, RECIPE, Templates().problems(POLICY), first=0))


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "training.jsonl").read_text().splitlines()]


def weights(policy: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    return dict(network.state_dict())


def test_a_run_that_goes_on_ends_where_one_without_a_stop_does(small_model: Path, tmp_path: Path) -> None:
    tune(small_model, tmp_path / "whole", 4)
    tune(small_model, tmp_path / "parts", 2)
    tune(small_model, tmp_path / "parts", 4)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    whole, parts = (weights(tmp_path / name / "step-000004") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_steps_after_the_last_saved_state_are_made_and_listed_once(small_model: Path, tmp_path: Path) -> None:
    tune(small_model, tmp_path, 2)
    log = tmp_path / "training.jsonl"
    with log.open("a") as handle:
        handle.write('{"step": 3, "loss": 9.0}\n{"step": 4, "lo')  # killed while it wrote
    tune(small_model, tmp_path, 3)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == [1, 2, 3]
    assert losses(tmp_path)[2] != 9.0


def test_what_is_saved_is_an_ordinary_checkpoint_that_left_the_initial_weights(
    small_model: Path, tmp_path: Path
) -> None:
    tune(small_model, tmp_path, 2)
    before, after = weights(small_model), weights(tmp_path / "step-000002")
    changed = {name for name in before if not torch.allclose(before[name], after[name], atol=0.02, rtol=0)}
    lower = {name for name in before if "layers.0." in name or "embed" in name}
    assert before.keys() == after.keys()
    assert not changed & lower
    assert load_tokenizer(tmp_path / "step-000002").chat_template == CHAT_TEMPLATE
    assert json.loads((tmp_path / "step-000002" / "fine-tuning.json").read_text())["step"] == 2
    assert sorted(os.listdir(tmp_path)) == ["state.pt", "step-000002", "training.jsonl"]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_no_step(small_model: Path, tmp_path: Path, threads: int) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from dataclasses import replace

    mean_losses, tensors = [], []
    for number in (2, threads):
        tuning = FineTuning(small_model, tmp_path / str(number), replace(RECIPE, threads=number))
        with ThreadPoolExecutor(number) as pool:
            sequences = first_step(tuning.tokenizer)
            mean_losses.append(tuning.train_step(sequences, pool))
            tensors.append(tuning.parameters[3].detach().clone())
    assert mean_losses[0] == pytest.approx(mean_losses[1], rel=1e-5)
    assert torch.allclose(tensors[0], tensors[1], atol=1e-6)


def test_only_results_count_in_practice_and_all_of_a_solution(small_model: Path) -> None:
    tokenizer = load_tokenizer(small_model)
    tokenizer.chat_template = CHAT_TEMPLATE
    *worked, practice = first_step(tokenizer)
    for sequence in worked:
        assert set(sequence.weights) == {1.0}
    scored = practice.encoded.token_ids[practice.encoded.scored_start :]
    counted = [token for token, weight in zip(scored, practice.weights, strict=True) if weight]
    text, results = str(tokenizer.decode(list(scored))), str(tokenizer.decode(counted))
    stated = [line.partition("=")[2] for line in text.removesuffix("<|im_end|>").split("\n")]
    assert results.replace("<|im_end|>", "").split("\n") == stated


def test_the_loss_is_that_of_the_naive_computation(small_model: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    tuning = FineTuning(small_model, tmp_path, RECIPE)
    sequences = first_step(tuning.tokenizer)
    total = weight_sum = 0.0
    network = tuning.model.double().eval()
    with torch.no_grad():
        for sequence in sequences:
            ids = torch.tensor([sequence.encoded.token_ids])
            log_probs = network(input_ids=ids).logits[0].log_softmax(-1)
            for offset, weight in enumerate(sequence.weights):
                place = sequence.encoded.scored_start + offset
                total -= weight * float(log_probs[place - 1, ids[0, place]])
                weight_sum += weight
    tuning.model.float().train()
    with ThreadPoolExecutor(2) as pool:
        assert tuning.train_step(sequences, pool) == pytest.approx(total / weight_sum, rel=1e-5)
