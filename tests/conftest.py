"""Tiny tokenizers and models that several rooms' tests use; made on the spot, nothing is read."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast


def pytest_collection_finish() -> None:
    """What was imported is never garbage; each collection would look through all of it again."""
    gc.collect()
    gc.freeze()


def pytest_configure() -> None:
    """No test cuts the power, so nothing needs to be on the disk before the next line runs.

    Nor does one fail because the machine is busy with something else.
    """
    os.fsync = _do_not_sync
    settings.register_profile("patient", settings(), deadline=None)
    settings.load_profile("patient")


def _do_not_sync(fd: object) -> None: ...


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{% if loop.first %}{{ '<|begin_of_text|>' }}{% endif %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
BARE = "{% for m in messages %}{{ m['role'] + ':' + m['content'] + eos_token }}{% endfor %}"
MISTRAL = (
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST]' + m['content'] + '[/INST]' }}"
    "{% else %}{{ m['content'] + '</s>' }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ '<bos>' }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else "
    "m['role']) + '\n' + m['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "phi": PHI,
    "bare": BARE,
}
_WORDS = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # as Llama 3
)
_CONTROL = {
    "chatml": ("<|pad|>", "<|im_start|>", "<|im_end|>"),
    "llama3": ("<|pad|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": ("<pad>", "<s>", "[INST]", "[/INST]", "</s>"),
    "gemma": ("<pad>", "<bos>", "<start_of_turn>", "<eos>", "<end_of_turn>"),
    "phi": ("<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
    "bare": ("<|pad|>", "<|end|>"),
}
_TEXT = [
    "Step 1: Tom had 3 boxes with 12 pens each, so 3 * 12 = 36 pens.\n\nStep 2: He gave away 9 pens.\n\n",
    "Step 3: That leaves 36 - 9 = 27 pens.\n\nThe answer is 27. user assistant assistant user\n\n",
    "First add the numbers.\nThen take half of them.\nAnd so on, step by step.\n\n\n",
]

MakeTokenizer = Callable[..., PreTrainedTokenizerBase]
MakeModel = Callable[..., LlamaForCausalLM]


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """A function of a key of ``TEMPLATES``: a small byte-level BPE chat tokenizer."""

    def make(template: str = "chatml") -> PreTrainedTokenizerBase:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        control = _CONTROL[template]
        trainer = trainers.BpeTrainer(
            vocab_size=340,
            special_tokens=list(control),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_TEXT * 3, trainer)
        fast: Any = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token=control[-1], pad_token=control[0]
        )
        fast.chat_template = TEMPLATES[template]
        return fast  # type: ignore[no-any-return]

    return make


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """A function of a seed: a tiny random Llama whose probabilities are far from uniform."""

    def make(seed: int = 0, *, vocab_size: int = 340, max_position_embeddings: int = 512) -> LlamaForCausalLM:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=max_position_embeddings,
            initializer_range=0.3,
        )
        return LlamaForCausalLM(config).eval()  # type: ignore[no-any-return]

    return make


@pytest.fixture(scope="session")
def _kept_pair(
    tmp_path_factory: pytest.TempPathFactory, make_tokenizer: MakeTokenizer, make_model: MakeModel
) -> Path:
    directory = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate(("policy", "reference")):
        make_model(seed).save_pretrained(str(directory / name))
        make_tokenizer().save_pretrained(str(directory / name))
    return directory


@pytest.fixture
def saved_pair(tmp_path: Path, _kept_pair: Path) -> tuple[Path, Path]:
    """Directories of a policy and a reference, plain checkpoints with one tokenizer."""
    for name in ("policy", "reference"):
        shutil.copytree(_kept_pair / name, tmp_path / name)
    return tmp_path / "policy", tmp_path / "reference"
