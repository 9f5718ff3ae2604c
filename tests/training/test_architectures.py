"""The trainer on the families that people use, each with its own chat template: a step against a naive twin.

The twin renders the template itself, tokenises the whole text, and runs transformers' own forward in
float64 with all logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.logprobs.tiny_models import tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from stepcredit.checkpoints import LoadOptions
from stepcredit.data import rollout_to_json, write_rows
from stepcredit.pipelines.train import Options, run
from stepcredit.scorers import load_scorer
from stepcredit.training.config import TrainConfig
from stepcredit.training.trainer import PRMTrainer
from stepcredit.types import Rollout

BETA = 0.3
END_OF_TURN = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "mistral": "</s>",
    "gemma": "<end_of_turn>",
    "phi": "<|end|>",
}
FAMILIES = [
    ("llama", "llama3", "packed"),
    ("llama-tied", "llama3", "padded"),
    ("qwen2", "chatml", "padded"),
    ("qwen3", "chatml", "packed"),
    ("mistral", "mistral", "packed"),
    ("gemma2", "gemma", "padded"),
    ("gemma3_text", "gemma", "packed"),
    ("phi", "phi", "padded"),
    ("phi3", "phi", "packed"),
    ("mixtral", "mistral", "padded"),
    ("qwen2_moe", "chatml", "packed"),
    ("qwen2_moe", "chatml", "padded"),
]
RESPONSES = [
    ("p1", "3 pens.\nThe answer is 7.", True),
    ("p1", "First add.\nThen halve: 9", False),
    ("p1", "3", False),
    ("p2", "So 3 * 12 = 36.\n\nThe answer is 36.", True),
]
PROMPTS = {"p1": "Tom had 3 pens. How many?", "p2": "3 * 12?"}
ROLLOUTS = [
    Rollout(
        id=str(index),
        prompt_id=prompt_id,
        prompt=PROMPTS[prompt_id],
        response=response,
        correct=correct,
        finish_reason="stop",
    )
    for index, (prompt_id, response, correct) in enumerate(RESPONSES)
]


def save(directory: Path, family: str, tokenizer: PreTrainedTokenizerBase, seed: int) -> Path:
    # Beside the router's loss, which some checkpoints ask for: the reward is the log-ratio alone.
    changes: dict[str, Any] = {"output_router_logits": True} if family in ("mixtral", "qwen2_moe") else {}
    tiny_model(family, seed=seed, vocab_size=len(tokenizer) + 4, **changes).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def double(directory: Path) -> Any:
    """The checkpoint in float64, by transformers alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float64, attn_implementation="eager"
    )
    model.config._experts_implementation = "eager"  # the grouped kernels know no float64
    return model.eval()


def naive_log_prob(model: Any, tokenizer: Any, template: str, rollout: Rollout) -> Tensor:
    """Log-probability of a response and its end of turn after its prompt."""
    messages = [{"role": "user", "content": rollout.prompt}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    text = prompt + rollout.response + END_OF_TURN[template]
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    log_probs = (
        model(ids, output_router_logits=False) if hasattr(model, "router_aux_loss_coef") else model(ids)
    )
    picked = log_probs.logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[start - 1 :]
    total: Tensor = picked.sum()
    return total


def naive_step(policy: Any, reference: Any, tokenizer: Any, template: str) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of cross-entropy over all responses."""
    losses = []
    for rollout in ROLLOUTS:
        with torch.no_grad():
            base = naive_log_prob(reference, tokenizer, template, rollout)
        reward = BETA * (naive_log_prob(policy, tokenizer, template, rollout) - base)
        losses.append(-torch.nn.functional.logsigmoid(reward if rollout.correct else -reward))
    loss = torch.stack(losses).mean()
    loss.backward()
    return loss.item(), {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}


def watch_first_step(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Loss and gradients of the first step that the trainer takes."""
    seen: dict[str, Any] = {}
    original = PRMTrainer.training_step

    def training_step(self: PRMTrainer, model: Any, *arguments: Any, **options: Any) -> Tensor:
        loss = original(self, model, *arguments, **options)
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        seen.setdefault("loss", loss.item())
        seen.setdefault("gradients", {name: grad.clone() for name, grad in gradients.items()})
        return loss

    monkeypatch.setattr(PRMTrainer, "training_step", training_step)
    return seen


@pytest.mark.parametrize(("family", "template", "layout"), FAMILIES)
def test_a_step_equals_the_naive_one_and_the_model_scores_as_it_was_trained(
    family: str,
    template: str,
    layout: str,
    make_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = make_tokenizer(template)
    policy = save(tmp_path / "policy", family, made, seed=1)
    reference = save(tmp_path / "reference", family, made, seed=2)
    # transformers gives some families a class of their own, which splits digits in its own way.
    tokenizer = AutoTokenizer.from_pretrained(policy)
    loss, expected = naive_step(double(policy), double(reference), tokenizer, template)
    write_rows(tmp_path / "graded.jsonl", map(rollout_to_json, ROLLOUTS))
    seen = watch_first_step(monkeypatch)
    config = TrainConfig(
        beta=BETA, batch_size=8, epochs=2, learning_rate=1e-3, max_grad_norm=0, layout=layout, log_every=1
    )
    out = tmp_path / "prm"
    run(
        Options(
            graded=tmp_path / "graded.jsonl",
            model=str(policy),
            reference=str(reference),
            out=out,
            config=config,
            load=LoadOptions(device="cpu"),
        )
    )
    assert seen["loss"] == pytest.approx(loss, rel=1e-4)
    assert seen["gradients"].keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        # A bias of keys moves all scores alike: its gradient is zero but for rounding.
        close = 1e-3 * gradient.abs().max().item() + 1e-6 * largest
        torch.testing.assert_close(seen["gradients"][name].double(), gradient, rtol=0, atol=close, msg=name)
    trained, base = double(out), double(reference)
    for rollout, score in zip(ROLLOUTS, load_scorer(out).score_all(ROLLOUTS), strict=True):
        with torch.no_grad():
            log_ratio = naive_log_prob(trained, tokenizer, template, rollout) - naive_log_prob(
                base, tokenizer, template, rollout
            )
        assert score.steps[-1].value == pytest.approx(BETA * log_ratio.item(), rel=1e-3, abs=1e-3)
