"""All pairs of a prompt in one step: the loss and gradient of TRL's trainer, each response computed once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from stepcredit.logprobs import enable_packing
from stepcredit.scorers.implicit import implicit_record
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import Example, TrainingSet
from stepcredit.training.trainer import PRMTrainer
from stepcredit.types import Encoded

BETA = 0.3
RESPONSES = (9, 14, 5, 11, 8, 17, 6, 10)
"""Tokens of the responses; the first half is right."""


def language_model() -> Any:
    """A GPT-2: unlike Llama's, its normalisation does not round to float32 in a float64 model."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    config = GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return GPT2LMHeadModel(config).double().eval()


def group() -> TrainingSet:
    """One prompt, eight responses, all sixteen pairs."""
    source = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 50, (20 + sum(RESPONSES),), generator=source).tolist()
    examples, start = [], 20
    for number, length in enumerate(RESPONSES):
        encoded = Encoded((*tokens[:20], *tokens[start : start + length]), 20)
        examples.append(Example(id=str(number), prompt_id="p", encoded=encoded, label=float(number < 4)))
        start += length
    pairs = tuple((right, wrong) for right in range(4) for wrong in range(4, 8))
    return TrainingSet(examples=tuple(examples), units=pairs)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def ours(
    policy: Any, reference: Any, data: TrainingSet, work: Path, *, packed: bool, tokens_per_forward: int
) -> tuple[float, dict[str, Tensor], list[int]]:
    """Loss and gradients of one step, and the positions of its passes."""

    @torch.no_grad()
    def log_probs(encoded: Sequence[Encoded]) -> list[Tensor]:
        values = []
        for item in encoded:
            logits = reference(input_ids=torch.tensor([item.token_ids])).logits[0, :-1].log_softmax(dim=-1)
            targets = torch.tensor(item.token_ids[1:])
            values.append(logits.gather(1, targets[:, None])[item.scored_start - 1 :, 0])
        return values

    trainer = PRMTrainer(
        policy,
        TrainingArguments(output_dir=str(work), use_cpu=True, report_to=[], max_steps=1),
        config=TrainConfig(objective="dpo", batch_size=len(data.units), group_prompts=True),
        record=partial(implicit_record, beta=BETA),
        data=data,
        reference=log_probs,
        tokens_per_forward=tokens_per_forward,
        packed=packed and enable_packing(policy),
    )
    (step,) = trainer.get_train_dataloader()
    loss = trainer.training_step(policy, step)
    return loss.item(), gradients(policy), [forward.tokens.num_computed for forward in step.forwards]


def _exact_head(model: Any) -> None:
    """TRL's head rounds to float32 whatever the model; its loss gets log-probabilities of whole logits."""
    fused, whole = model.forward, type(model).forward

    def forward(*, labels: Tensor, fused_lm_head: bool, **inputs: Any) -> Any:
        output = fused(labels=labels, fused_lm_head=fused_lm_head, **inputs)
        targets = labels[:, 1:]
        log_probs = whole(model, **inputs).logits[:, :-1].log_softmax(dim=-1)
        picked = log_probs.gather(2, targets.clamp(min=0)[..., None])[..., 0]
        output.log_probs = picked.masked_fill(targets == -100, 0.0)
        return output

    model.forward = forward


def trl(policy: Any, reference: Any, data: TrainingSet, work: Path) -> tuple[float, dict[str, Tensor]]:
    """The same of TRL's trainer, which computes each pair."""
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from stepcredit_bench.workload import word_tokenizer

    class AsTokenised(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    rows = [
        {
            "prompt_ids": list(data.examples[right].encoded.token_ids[:20]),
            "chosen_ids": list(data.examples[right].encoded.token_ids[20:]),
            "rejected_ids": list(data.examples[wrong].encoded.token_ids[20:]),
        }
        for right, wrong in data.units
    ]
    trainer = AsTokenised(
        model=policy,
        ref_model=reference,
        args=DPOConfig(
            output_dir=str(work),
            use_cpu=True,
            report_to=[],
            bf16=False,
            beta=BETA,
            max_length=None,
            per_device_train_batch_size=len(rows),
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=word_tokenizer(50),
    )
    for model in (policy, reference):
        _exact_head(model)
    (batch,) = trainer.get_train_dataloader()
    loss: Tensor = trainer.compute_loss(policy, batch)  # type: ignore[no-untyped-call]
    loss.backward()
    return loss.item(), gradients(policy)


@pytest.fixture
def models() -> tuple[Any, Any]:
    """A policy that has moved away from its reference."""
    reference = language_model()
    policy = copy.deepcopy(reference)
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return policy, reference


@pytest.mark.parametrize("packed", [False, True])
def test_a_step_on_all_pairs_has_the_loss_and_gradient_of_trls_trainer(
    models: tuple[Any, Any], tmp_path: Path, packed: bool
) -> None:
    pytest.importorskip("trl")
    policy, reference = models
    data = group()
    expected_loss, expected = trl(copy.deepcopy(policy), copy.deepcopy(reference), data, tmp_path)
    loss, computed, passes = ours(policy, reference, data, tmp_path, packed=packed, tokens_per_forward=1024)
    # The prompt and each response once; padded, each distinct sequence once.
    assert passes == ([20 + sum(RESPONSES)] if packed else [8 * (20 + max(RESPONSES))])
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert computed.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(computed[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
