"""Configurations and templates that would hang or fill the memory are refused at once."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3MoeConfig, Qwen3MoeForCausalLM

from stepcredit.checkpoints import load_config, load_model, load_tokenizer
from stepcredit.checkpoints.configurations import check_configuration, check_shapes, weight_shapes
from stepcredit.errors import CheckpointError

HUGE = (10**6, 10**9, 10**30)


def change(folder: Path, numbers: dict[str, Any], name: str = "config.json") -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **numbers}))


@pytest.fixture
def saved(tmp_path: Path, make_model: Any) -> Path:
    make_model(1).save_pretrained(str(tmp_path / "model"))
    return tmp_path / "model"


def test_a_sound_checkpoint_passes(saved: Path) -> None:
    check_configuration(saved)
    check_shapes(saved)
    shapes = weight_shapes(saved)
    loaded = load_model(saved).state_dict()
    assert {name: shapes[name] for name in shapes} == {name: tuple(loaded[name].shape) for name in shapes}


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("field", ["num_hidden_layers", "num_labels"])
@pytest.mark.parametrize("load", [load_model, load_config])
def test_far_too_many_modules_are_refused_at_once(load: Any, field: str, value: int, saved: Path) -> None:
    change(saved, {field: value})
    started = time.process_time()
    with pytest.raises(CheckpointError, match=rf"config\.json: {field} is 1e\+\d+, but the weights hold"):
        load(saved)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("value", HUGE[:2])
@pytest.mark.parametrize(
    "field", ["hidden_size", "intermediate_size", "vocab_size", "num_key_value_heads", "head_dim"]
)
def test_sizes_that_the_weights_do_not_have_are_refused_by_their_tensor(
    field: str, value: int, saved: Path
) -> None:
    change(saved, {field: value})
    with pytest.raises(CheckpointError, match=r"config\.json: makes model\..*, but the weights have \d+"):
        load_model(saved)


def test_positions_and_experts_are_compared_too(tmp_path: Path) -> None:
    GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    ).save_pretrained(str(tmp_path / "gpt2"))
    change(tmp_path / "gpt2", {"n_positions": 10**6})
    with pytest.raises(CheckpointError, match=r"makes transformer\.wpe\.weight of shape 1000000 x 16"):
        load_model(tmp_path / "gpt2")
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "moe_intermediate_size": 16}
    mixture = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, num_experts=4, num_experts_per_tok=2))
    mixture.save_pretrained(str(tmp_path / "moe"))
    load_model(tmp_path / "moe")
    change(tmp_path / "moe", {"num_experts": 10**6})
    with pytest.raises(CheckpointError, match=r"num_experts is 1e\+06, but the weights hold 4"):
        load_model(tmp_path / "moe")


def test_an_adapter_of_far_too_large_a_rank_is_refused(saved: Path, tmp_path: Path) -> None:
    adapted: Any = get_peft_model(load_model(saved), LoraConfig(r=2, target_modules="all-linear"))
    adapted.save_pretrained(str(tmp_path / "adapter"))
    load_model(tmp_path / "adapter")
    change(tmp_path / "adapter", {"r": 10**7}, "adapter_config.json")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: r is 1e\+07, but the weights hold 2"):
        load_model(tmp_path / "adapter")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 100,
        struct.pack("<Q", 10**15) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a": {}}',
        struct.pack("<Q", 20) + b'{"a": {"shape": [x]}',
    ],
)
def test_a_damaged_weight_file_is_named(saved: Path, content: bytes) -> None:
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot be loaded as a model \(model\.safetensors is damaged"):
        load_model(saved)


def test_a_gguf_file_has_no_more_blocks_than_tensors(tmp_path: Path) -> None:
    def gguf(blocks: int, tensors: int) -> Path:
        key = b"llama.block_count"
        start = b"GGUF" + struct.pack("<IQQ", 3, tensors, 1)
        entry = struct.pack("<Q", len(key)) + key + struct.pack("<II", 4, blocks)
        path = tmp_path / "model.gguf"
        path.write_bytes(start + entry + bytes(64 * min(tensors, 99)))
        return path

    check_configuration(gguf(2, 20))
    for tensors in (20, 2**40):
        with pytest.raises(
            CheckpointError, match=r"block_count is 1000000, but it holds at most \d+ tensors"
        ):
            check_configuration(gguf(10**6, tensors))


LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(9999) %}"

DOUBLING = "{% set ns = namespace(t='x') %}{% for i in range(40) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ 'x' * 3000000000 }}", "does not finish"),
        ("{{ 'x' * 2000000 }}", "makes 2,000,000 characters of 14"),
        (LOOPS + "{% endfor %}" * 3, "does not finish"),
        (DOUBLING, "does not finish"),
        ("{% if messages|length > 5 %}{{ 'x' * 3000000000 }}{% endif %}", "does not finish"),
    ],
)
def test_a_template_that_runs_out_of_bounds_is_refused(
    template: str, problem: str, tmp_path: Path, make_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepcredit.checkpoints.templates._CPU_SECONDS", 1)
    monkeypatch.setattr("stepcredit.checkpoints.templates._MOST_BYTES", 1 << 28)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(CheckpointError, match=f"its chat template .*{problem}"):
        load_tokenizer(tmp_path)


def test_templates_that_refuse_a_conversation_are_left_alone(tmp_path: Path, make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    tokenizer.save_pretrained(str(tmp_path))
    assert load_tokenizer(tmp_path).chat_template == tokenizer.chat_template
