"""A tiny model with the lab's tokenizer, and a few graded responses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tutor_rollouts import tutor_rollouts

from stepcredit.lab.tokenizer import make_tokenizer
from stepcredit.lab.tutor import WEAK
from stepcredit.types import Rollout


def save_tiny_model(directory: Path, *, seed: int = 0, tied: bool = False) -> Path:
    """A random Llama of 2 layers and width 16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=96,
        tie_word_embeddings=tied,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_rollouts(num_problems: int = 6, samples: int = 4, *, seed: int = 0) -> list[Rollout]:
    """Graded responses of the weak tutor, both classes for most problems."""
    return tutor_rollouts(WEAK, num_problems, samples, seed=seed)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny model."""
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def rollouts() -> list[Rollout]:
    """24 graded responses to 6 problems."""
    return make_rollouts()
