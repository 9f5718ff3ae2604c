"""KTO through ``train``: every step's loss and z, and the weights, are those of a plain loop in float64."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stepcredit.checkpoints import LoadOptions, load_model, load_tokenizer
from stepcredit.data import rollout_to_json, write_rows
from stepcredit.encoding import ChatEncoding
from stepcredit.objectives import get_objective
from stepcredit.pipelines.train import Options, run
from stepcredit.runs import read_manifest
from stepcredit.steps import StepRule
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import TrainingSet, _swap_response, make_training_set
from stepcredit.types import Encoded, Rollout

STEPS, RATE, BETA = 4, 3e-3, 0.5
# A full batch, and nothing but the objective and Adam: no warm-up, decay or clipping. Right responses weigh
# more, so that the likelihood of all responses rises, mismatched ones included, and z with it.
SETTINGS = TrainConfig(
    objective="kto",
    beta=BETA,
    right_weight=1.5,
    wrong_weight=0.05,
    learning_rate=RATE,
    batch_size=24,
    epochs=float(STEPS),
    schedule="constant",
    warmup=0.0,
    max_grad_norm=0.0,
    log_every=1,
    step_rule="newline",
)


def log_prob(model: Any, item: Encoded) -> Tensor:
    """Of a response, from the whole log-softmax of one unpadded sequence."""
    log_probs = torch.log_softmax(model(input_ids=torch.tensor([item.token_ids])).logits[0], dim=-1)
    return torch.stack(
        [log_probs[i - 1, item.token_ids[i]] for i in range(item.scored_start, len(item.token_ids))]
    ).sum()


def train_plainly(model: Any, reference: Any, data: TrainingSet) -> tuple[list[float], list[float]]:
    """Losses and z of each step; ``model`` has the weights after them."""
    with torch.no_grad():
        before = [log_prob(reference, example.encoded) for example in data.examples]
        before_mismatched = [log_prob(reference, item) for item in data.mismatched]
    adam = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.9, 0.95))
    losses, baselines = [], []
    for _ in range(STEPS):
        with torch.no_grad():
            mismatched = [
                BETA * (log_prob(model, item) - start)
                for item, start in zip(data.mismatched, before_mismatched, strict=True)
            ]
            z = max(0.0, float(torch.stack(mismatched).mean()))
        terms = []
        for example, start in zip(data.examples, before, strict=True):
            u = BETA * (log_prob(model, example.encoded) - start)
            right = SETTINGS.right_weight * (1 - torch.sigmoid(u - z))
            wrong = SETTINGS.wrong_weight * (1 - torch.sigmoid(z - u))
            terms.append(right if example.label else wrong)
        loss = torch.stack(terms).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
        baselines.append(z)
    return losses, baselines


def test_four_full_batch_steps_equal_a_plain_loop(
    tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
) -> None:
    write_rows(tmp_path / "graded.jsonl", map(rollout_to_json, rollouts))
    out = tmp_path / "prm"
    run(
        Options(
            graded=tmp_path / "graded.jsonl",
            model=str(tiny_model),
            out=out,
            config=SETTINGS,
            load=LoadOptions(device="cpu"),
            seed=5,
        )
    )
    encoding = ChatEncoding(load_tokenizer(tiny_model), StepRule("newline"))
    data = make_training_set(rollouts, encoding, get_objective("kto"), SETTINGS, seed=5)
    model: Any = load_model(tiny_model, device="cpu").double()
    losses, baselines = train_plainly(model, load_model(tiny_model, device="cpu").double(), data)
    assert min(baselines[1:]) > 0.01
    rows = [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-5)
    assert [row["baseline"] for row in rows] == pytest.approx(baselines, rel=1e-4, abs=1e-6)
    trained = load_model(out, device="cpu").state_dict()
    for name, value in model.state_dict().items():
        # Adam divides by the size of a gradient, so what a tiny one has of rounding shows.
        torch.testing.assert_close(trained[name].double(), value, rtol=0, atol=0.02 * RATE, msg=name)
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest["baseline"]["steps"] == STEPS
    assert manifest["baseline"]["zero_steps"] == sum(row["baseline"] == 0 for row in rows) <= 1
    assert manifest["baseline"]["mean"] == pytest.approx(sum(baselines) / STEPS, rel=1e-4)


def test_mismatched_responses_fit_the_context(tiny_model: Path, rollouts: list[Rollout]) -> None:
    """A long prompt with another's long response would be longer than anything the model was made for."""
    tokenizer = load_tokenizer(tiny_model)
    whole = ChatEncoding(tokenizer, StepRule("newline"))
    first = rollouts[0].prompt_id
    rows = [replace(row, prompt="1+2+" * 8) if row.prompt_id == first else row for row in rollouts]
    longest = max(len(whole.encode(row).encoded.token_ids) for row in rows)
    sets = [
        make_training_set(rows, encoding, get_objective("kto"), SETTINGS, seed=0)
        for encoding in (whole, ChatEncoding(tokenizer, StepRule("newline"), longest))
    ]
    free, bounded = (data.mismatched for data in sets)
    assert max(len(item.token_ids) for item in free) > longest
    assert [item.token_ids for item in bounded] == [item.token_ids[:longest] for item in free]
    assert all(item.num_scored > 0 for item in bounded)


def test_a_cut_mismatched_response_ends_with_a_scored_token() -> None:
    prompt = Encoded(tuple(range(10)), 8)
    response = Encoded(tuple(range(100, 110)), 2, skipped=((5, 7), (8, 9)))
    swapped = _swap_response(prompt, response, None)
    assert swapped == Encoded((*range(8), *range(102, 110)), 8, skipped=((11, 13), (14, 15)))
    expected = {13: (11, ()), 12: (11, ()), 14: (14, ((11, 13),)), 15: (14, ((11, 13),)), 11: (11, ())}
    for longest, (length, gaps) in expected.items():
        cut = _swap_response(prompt, response, longest)
        assert (len(cut.token_ids), cut.skipped) == (length, gaps)
