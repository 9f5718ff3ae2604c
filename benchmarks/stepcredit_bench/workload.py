"""What is measured on: a random model of a known shape and random token sequences of realistic lengths."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stepcredit.types import Encoded

PROMPT_TOKENS = (70, 90)
RESPONSE_TOKENS = (30, 250)
CONTEXT_LENGTH = 2048

SHAPES: Mapping[str, Mapping[str, int]] = {
    "smollm2-135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "llama-1b": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
"""Llama-type shapes with tied embeddings; ``tiny`` only shows that a benchmark runs."""


def random_model(
    shape: str,
    *,
    seed: int,
    dtype: str = "float32",
    vocab_size: int | None = None,
    device: str = "cpu",
) -> Any:
    """A model with the random weights of ``seed``, the same in every process, rounded to ``dtype``.

    Args:
        shape: Name in :data:`SHAPES`.
        seed: Of the weights.
        dtype: Format of the weights.
        vocab_size: In the place of the shape's own.
        device: Where the weights are drawn and stay; another device draws others.
    """
    torch.manual_seed(seed)
    settings: dict[str, Any] = {**SHAPES[shape], "tie_word_embeddings": True, "pad_token_id": 0}
    if vocab_size is not None:
        settings["vocab_size"] = vocab_size
    config = LlamaConfig(**settings, max_position_embeddings=CONTEXT_LENGTH)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    return model.to(getattr(torch, dtype)).eval()


_LOOKED_AT, _FAR = 256, 40.0
"""Tokens whose final states are averaged; nats between the end and what is as likely as the average."""


@torch.no_grad()
def never_ends(model: Any, end_token: int) -> Any:
    """The model, made to give its end of turn a probability near 0, so that responses reach their limit.

    Every embedding gains the same direction, so that final states have much in common; the end's embedding is
    opposite to their mean, far enough to lose against all others.
    """
    weights: torch.Tensor = model.get_input_embeddings().weight
    weights += 4 * weights.std()
    tokens = torch.arange(_LOOKED_AT, device=weights.device)[None] * 7919 % len(weights)
    mean = model.base_model(tokens)[0][0].float().mean(dim=0)
    weights[end_token] = (-_FAR * mean / mean.dot(mean)).to(weights.dtype)
    return model


def word_tokenizer(vocab_size: int) -> Any:
    """A tokenizer whose words ``t0``, ``t1``, ... are the tokens; a prompt is its words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"t{token}": token for token in range(vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="t0",
        unk_token="t1",
        eos_token="t2",
        chat_template="{% for message in messages %}{{ message['content'] }}"
        "{% if message['role'] == 'assistant' %} t2{% endif %}{% endfor %}",
    )


def response_groups(
    shape: str,
    *,
    num_groups: int,
    responses_per_group: int,
    prompt_tokens: tuple[int, int] = PROMPT_TOKENS,
    seed: int = 0,
) -> list[list[Encoded]]:
    """Groups of responses to one prompt each; all responses differ from their first token on."""
    source = random.Random(seed)
    vocabulary = SHAPES[shape]["vocab_size"]

    def tokens(bounds: tuple[int, int]) -> tuple[int, ...]:
        # 0 to 3 stay free for padding and the ends of turns.
        return tuple(source.randrange(4, vocabulary) for _ in range(source.randint(*bounds)))

    groups = []
    for _ in range(num_groups):
        prompt = tokens(prompt_tokens)
        responses = [tokens(RESPONSE_TOKENS) for _ in range(responses_per_group)]
        groups.append([Encoded(prompt + response, len(prompt)) for response in responses])
    return groups


@dataclass(frozen=True, slots=True)
class Pair:
    """A preferred and a rejected response to one prompt."""

    chosen: Encoded
    rejected: Encoded


def preference_pairs(shape: str, *, num_pairs: int, seed: int = 0) -> list[Pair]:
    """Pairs that each have a prompt of their own."""
    groups = response_groups(shape, num_groups=num_pairs, responses_per_group=2, seed=seed)
    return [Pair(chosen, rejected) for chosen, rejected in groups]
