"""The gradient of a step: equal to a naive loop's, however the work is cut, padded, cached or recomputed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainingArguments

from stepcredit.checkpoints import load_tokenizer
from stepcredit.encoding import ChatEncoding
from stepcredit.errors import UserError
from stepcredit.objectives import OBJECTIVES
from stepcredit.scorers.implicit import implicit_record
from stepcredit.steps import StepRule
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import TrainingSet, make_training_set
from stepcredit.training.trainer import PRMTrainer
from stepcredit.types import Encoded, Rollout, StepLabel

BETA = 0.4


def label_lines(rollout: Rollout) -> Rollout:
    """Labels for each line, made up: right where the line number is even."""
    ends = [index + 1 for index, character in enumerate(rollout.response) if character == "\n"]
    labels = tuple(StepLabel(end, float(number % 2 == 0)) for number, end in enumerate(ends))
    return replace(rollout, step_labels=labels)


def training_set(model: Path, rollouts: Sequence[Rollout], objective: str) -> TrainingSet:
    if OBJECTIVES[objective].needs_step_labels:
        rollouts = [label_lines(rollout) for rollout in rollouts]
    encoding = ChatEncoding(load_tokenizer(model), StepRule("newline"))
    return make_training_set(
        rollouts, encoding, OBJECTIVES[objective], TrainConfig(objective=objective), seed=1
    )


def fixed_reference(encoded: Sequence[Encoded]) -> list[Tensor]:
    """Made-up reference log-probabilities that depend on the sequence alone."""
    values = []
    for item in encoded:
        generator = torch.Generator().manual_seed(sum(item.token_ids) + len(item.token_ids))
        values.append(-3 * torch.rand(item.num_scored, generator=generator, dtype=torch.float64))
    return values


def make_trainer(
    model: Any,
    data: TrainingSet,
    objective: str,
    work: Path,
    *,
    tokens_per_forward: int = 4096,
    **fields: Any,
) -> PRMTrainer:
    arguments = TrainingArguments(
        output_dir=str(work),
        use_cpu=True,
        report_to=[],
        max_steps=1,
        activation_checkpointing=fields.pop("gradient_checkpointing", False),
        logging_nan_inf_filter=False,
    )
    constants: dict[str, Any] = {"prefix_margin": 0.5, "prefix_beta": 2.0} if "prefix" in objective else {}
    return PRMTrainer(
        model,
        arguments,
        config=TrainConfig(objective=objective, batch_size=8, **constants),
        record=partial(implicit_record, beta=BETA),
        data=data,
        reference=fields.pop("reference", fixed_reference),
        tokens_per_forward=tokens_per_forward,
        **fields,
    )


def gradients(trainer: PRMTrainer, units: Sequence[int]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one step."""
    model: Any = trainer.model
    model.zero_grad()
    loss = trainer.training_step(model, trainer.make_step_batch(units))
    computed = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), computed


def naive_log_ratios(model: Any, item: Encoded) -> Tensor:
    """Log-softmax over all logits of one unpadded sequence."""
    ids = torch.tensor([item.token_ids])
    log_probs = torch.log_softmax(model(input_ids=ids).logits[0].double(), dim=-1)
    picked = [log_probs[i - 1, item.token_ids[i]] for i in range(item.scored_start, len(item.token_ids))]
    (reference,) = fixed_reference([item])
    return torch.stack(picked) - reference


def naive_loss(model: Any, data: TrainingSet, units: Sequence[int], objective: str) -> Tensor:
    """The objectives by their formulas, one response after another."""
    log = torch.nn.functional.logsigmoid
    u = {}
    ratios = {}
    for row in {row for unit in units for row in data.units[unit]}:
        ratios[row] = naive_log_ratios(model, data.examples[row].encoded)
        u[row] = BETA * ratios[row].sum()
    losses = []
    if OBJECTIVES[objective].paired:
        for unit in units:
            c, r = (u[row] for row in data.units[unit])
            first, second = data.units[unit]
            means = ratios[first].mean() - ratios[second].mean()
            losses.append(
                {
                    "dpo": -log(c - r),
                    "nca": -log(c) - 0.5 * log(-c) - 0.5 * log(-r),
                    "ipo": (means - 1 / (2 * BETA)) ** 2,
                    "bco-pair": -log(c) - log(-r),
                    "pair-margin": -log(0.2 * (c - r) - 2.0),
                }[objective]
            )
        return torch.stack(losses).mean()
    rows = [data.units[unit][0] for unit in units]
    labels = {row: data.examples[row].label for row in rows}
    if objective == "kto":
        kl = [BETA * naive_log_ratios(model, data.mismatched[row]).sum() for row in rows]
        z = max(0.0, torch.stack(kl).mean().item())
        losses = [1 - torch.sigmoid(u[row] - z if labels[row] else z - u[row]) for row in rows]
        return torch.stack(losses).mean()
    shift, num_labels = 0.0, sum(len(data.examples[row].step_targets) for row in rows)
    if objective == "bco":
        for label in (0, 1):
            shift += torch.stack([u[row] for row in rows if labels[row] == label]).mean().item() / 2
    for row in rows:
        sign = 1 if labels[row] else -1
        ce = -log(sign * (u[row] - shift))
        lengths = torch.arange(1, len(ratios[row]) + 1)
        prefix_values = 2.0 * ratios[row].cumsum(0) / lengths
        prefix = -log(sign * prefix_values - 0.5).mean()
        values = BETA * ratios[row].cumsum(0)
        token = -log(sign * values).mean()
        targets = data.examples[row].step_targets
        step = [-log(values[at] if label else -values[at]) for at, label in targets] or [torch.zeros(())]
        losses.append(
            {
                "ce": ce,
                "bco": ce,
                "prefix": prefix,
                "ce-prefix": ce + prefix,
                "token-ce": token,
                "step-ce": torch.stack(step).mean(),
                "label-ce": torch.stack(step).sum() * len(rows) / num_labels,
            }[objective]
        )
    return torch.stack(losses).mean()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.fixture
def model(tiny_model: Path) -> Any:
    """A GPT-2: unlike Llama's, its normalisation does not round to float32 in a float64 model."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokenizer = load_tokenizer(tiny_model)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=96, resid_pdrop=0.0
    )
    config.embd_pdrop = config.attn_pdrop = 0.0
    return GPT2LMHeadModel(config).double().eval()


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_a_step_equals_the_naive_loop_however_it_is_cut(
    objective: str, model: Any, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
) -> None:
    data = training_set(tiny_model, rollouts, objective)
    units = list(range(min(8, len(data.units))))
    expected = naive_loss(model, data, units, objective)
    model.zero_grad()
    expected.backward()
    naive = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for budget in (1, 150, 4096):
        loss, computed = gradients(
            make_trainer(model, data, objective, tmp_path, tokens_per_forward=budget), units
        )
        assert loss == pytest.approx(expected.item(), rel=1e-10)
        assert_same(computed, naive)


def test_gradient_checkpointing_changes_no_gradient(
    model: Any, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
) -> None:
    data = training_set(tiny_model, rollouts, "ce")
    _, plain = gradients(make_trainer(model, data, "ce", tmp_path), range(8))
    trainer = make_trainer(model, data, "ce", tmp_path, gradient_checkpointing=True)
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing
    _, recomputed = gradients(trainer, range(8))
    assert_same(recomputed, plain)


def test_identical_sequences_are_computed_once_and_count_each_time(
    model: Any, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
) -> None:
    data = training_set(tiny_model, rollouts, "ce")
    twin = replace(data.examples[0], id="twin", label=1 - data.examples[0].label)
    doubled = replace(data, examples=(*data.examples, twin), units=(*data.units, (len(data.examples),)))
    trainer = make_trainer(model, doubled, "ce", tmp_path)
    units = [0, 1, len(data.examples)]
    (forward,) = trainer.make_step_batch(units).forwards
    assert forward.tokens.input_ids.shape[0] == 2
    loss, _ = gradients(trainer, units)
    assert loss == pytest.approx(naive_loss(model, doubled, units, "ce").item(), rel=1e-10)


def test_a_loss_that_is_not_finite_stops_with_the_ids(
    model: Any, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
) -> None:
    data = training_set(tiny_model, rollouts, "dpo")
    bad = data.units[1]

    def reference(encoded: Sequence[Encoded]) -> list[Tensor]:
        broken = data.examples[bad[1]].encoded
        values = fixed_reference(encoded)
        return [
            v * math.nan if e.token_ids == broken.token_ids else v
            for v, e in zip(values, encoded, strict=True)
        ]

    trainer = make_trainer(model, data, "dpo", tmp_path, reference=reference, tokens_per_forward=1)
    with pytest.raises(UserError, match=data.examples[bad[1]].id) as error:
        trainer.training_step(model, trainer.make_step_batch([1]))
    assert "not a finite number" in str(error.value)
    assert "--learning-rate" in str(error.value)


def test_heldout_metrics_come_from_the_current_weights(
    model: Any, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
) -> None:
    data = training_set(tiny_model, rollouts, "ce")
    trainer = make_trainer(model, data, "ce", tmp_path, heldout=data.examples)
    metrics = trainer.heldout_now()
    sums = [naive_log_ratios(model, example.encoded).sum().item() for example in data.examples]
    right = [value * BETA for value, example in zip(sums, data.examples, strict=True) if example.label]
    assert metrics["reward_right"] == pytest.approx(sum(right) / len(right), rel=1e-9)
    assert metrics["kl_to_reference"] == pytest.approx(-sum(sums) / len(sums), rel=1e-9)
    assert not model.training


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_heldout_rewards_that_are_not_finite_stop_training_with_what_to_change(
    value: float, model: Any, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
) -> None:
    data = training_set(tiny_model, rollouts, "ce")

    def reference(encoded: Sequence[Encoded]) -> list[Tensor]:
        return [values * value for values in fixed_reference(encoded)]

    trainer = make_trainer(model, data, "ce", tmp_path, heldout=data.examples, reference=reference)
    with pytest.raises(UserError, match=r"held-out rewards are not finite.* Lower --learning-rate"):
        trainer.heldout_now()
