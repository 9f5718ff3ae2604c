"""How the labs' policies learn to write as the tutors do.

The mid policy is trained from scratch, weak and strong are fine-tuned from it: Muon on the weight matrices,
AdamW on the rest, each solution seen once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

from stepcredit.lab.labs import FIRST, SECOND, Lab
from stepcredit.lab.task import draw_problems
from stepcredit.lab.tokenizer import ASSISTANT, END_OF_TURN, USER
from stepcredit.runs import Progress, atomic_directory, write_json

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

TRAINING_RECORD: Final = "training.json"
"""File in a policy's directory: how it was made and the loss of each step."""


_TEXTS_AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a policy is made.

    Attributes:
        tutor: Name of the tutor whose solutions it learns from.
        start_from: Name of the policy whose weights it starts from; ``None`` is from scratch.
        solutions: Solutions of standard problems in a step; none is seen twice.
        other_solutions: Solutions in a step of each other domain.
        matrix_lr: Peak learning rate of Muon, for the weight matrices.
        rest_lr: Peak learning rate of AdamW, for embeddings, head and norms.
        seed: Fixes initial weights, problems and what the tutor writes.
    """

    tutor: str
    start_from: str | None
    num_steps: int
    solutions: int = 128
    other_solutions: int = 16
    matrix_lr: float = 0.02
    rest_lr: float = 0.005
    seed: int = 0


_FIRST: Final = {
    "mid": Recipe(tutor="mid", start_from=None, num_steps=240, seed=1),
    "weak": Recipe(tutor="weak", start_from="mid", num_steps=100, matrix_lr=0.01, rest_lr=0.0025, seed=2),
    "strong": Recipe(tutor="strong", start_from="mid", num_steps=100, matrix_lr=0.01, rest_lr=0.0025, seed=3),
}
_SECOND: Final = {
    name: replace(
        recipe,
        num_steps=700 if recipe.start_from is None else recipe.num_steps,
        solutions=80,
        other_solutions=5,
    )
    for name, recipe in _FIRST.items()
}
RECIPES: Final[dict[str, dict[str, Recipe]]] = {FIRST.name: _FIRST, SECOND.name: _SECOND}
"""Lab to the recipes of its policies, in the order in which they are made."""


def new_model(seed: int, lab: Lab = FIRST) -> LlamaForCausalLM:
    """A model with random weights: 3 layers, width 96, 0.36 million parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = lab.tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=288,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=lab.context_length,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def batches(recipe: Recipe, lab: Lab = FIRST) -> Iterator[list[tuple[str, str]]]:
    """For each optimiser step, its (problem, response) pairs, all written by the recipe's tutor."""
    parts: list[list[tuple[str, str]]] = []
    sizes: list[int] = []
    tutor = lab.tutor(recipe.tutor)
    for index, domain in enumerate(lab.domains.values()):
        size = recipe.solutions if domain == lab.standard else recipe.other_solutions
        problems = draw_problems(
            "policy", seed=recipe.seed, count=size * recipe.num_steps, domain=domain, distinct=False
        )
        responses = tutor.write(problems, seed=[recipe.seed, index])
        parts.append([(p.text, response) for p, response in zip(problems, responses, strict=True)])
        sizes.append(size)
    for step in range(recipe.num_steps):
        yield [
            pair
            for part, size in zip(parts, sizes, strict=True)
            for pair in part[step * size : (step + 1) * size]
        ]


def response_loss(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]]
) -> torch.Tensor:
    """Mean negative log-likelihood (nats a token) of the responses, end-of-turn included."""
    texts = [f"{USER}{prompt}{ASSISTANT}{response}{END_OF_TURN}" for prompt, response in pairs]
    texts.sort(key=len)  # texts of about one length have little padding
    parts = [texts[first : first + _TEXTS_AT_ONCE] for first in range(0, len(texts), _TEXTS_AT_ONCE)]
    losses = torch.cat([_token_losses(model, tokenizer, part) for part in parts])
    return losses.mean()


def _token_losses(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]
) -> torch.Tensor:
    encoded = tokenizer(
        texts, padding=True, padding_side="right", return_tensors="pt", add_special_tokens=False
    )
    ids, mask = encoded["input_ids"], encoded["attention_mask"].bool()
    in_response = (ids == tokenizer.convert_tokens_to_ids(ASSISTANT)).cumsum(dim=1).bool()
    # Right padding cannot be attended to by what precedes it, so the causal mask is enough.
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    scored = (in_response[:, :-1] & mask[:, 1:]).flatten()
    return functional.cross_entropy(
        logits.flatten(0, 1)[scored], ids[:, 1:].flatten()[scored], reduction="none"
    )


def train_policy(
    recipe: Recipe, model: LlamaForCausalLM, lab: Lab = FIRST, *, stop_after: int | None = None
) -> list[float]:
    """Train ``model`` in place.

    Args:
        stop_after: Makes only so many of the recipe's steps, as its schedule has them.

    Returns:
        The loss of each step, nats a response token.
    """
    tokenizer = lab.tokenizer()
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "model.layers" in name]
    rest = [p for name, p in model.named_parameters() if not (p.ndim == 2 and "model.layers" in name)]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=recipe.matrix_lr, weight_decay=0.0),
        torch.optim.AdamW(rest, lr=recipe.rest_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    peaks = [recipe.matrix_lr, recipe.rest_lr]
    model.train()
    losses = []
    with Progress(f"training the {recipe.tutor} policy", recipe.num_steps, "steps") as progress:
        for step, pairs in enumerate(islice(batches(recipe, lab), stop_after)):
            for optimiser, peak in zip(optimisers, peaks, strict=True):
                optimiser.param_groups[0]["lr"] = peak * schedule(step, recipe.num_steps)
            loss = response_loss(model, tokenizer, pairs)
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()
            losses.append(loss.item())
            progress.advance(extra=f"loss {losses[-1]:.3f}")
    model.eval()
    return losses


def schedule(step: int, num_steps: int) -> float:
    """Share of the peak learning rate: ten steps of warm-up, then half a cosine down to zero."""
    return min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / num_steps))


def make_policies(directory: str | Path, lab: Lab = FIRST) -> None:
    """Make all policies of a lab and save them as ``directory/<name>``; minutes of one core."""
    for name, recipe in RECIPES[lab.name].items():
        if recipe.start_from is None:
            model = new_model(recipe.seed, lab)
        else:
            model = _load(Path(directory) / recipe.start_from)
        losses = train_policy(recipe, model, lab)
        with atomic_directory(Path(directory) / name) as target:
            save_policy(model, target, lab)
            taught = {"tutor": asdict(lab.tutor(recipe.tutor))}
            record = {"recipe": asdict(recipe) | taught, "losses": [round(loss, 4) for loss in losses]}
            write_json(target / TRAINING_RECORD, record)


def save_policy(model: LlamaForCausalLM, directory: Path, lab: Lab = FIRST) -> None:
    """Save as an ordinary Hugging Face checkpoint in bfloat16, with tokenizer and chat template."""
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(directory)
    lab.tokenizer().save_pretrained(directory)
    for file in directory.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner can read


def _load(directory: Path) -> LlamaForCausalLM:
    from transformers import LlamaForCausalLM

    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model
