from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stepcredit.checkpoints import (
    PRMCard,
    Reference,
    load_model,
    load_tokenizer,
    save_prm,
    template_hash,
    tokenizer_hash,
    weights_hash,
)
from stepcredit.errors import CheckpointError


def tiny_tokenizer(extra: str = "") -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<eos>", "a", "b", *extra])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="a")),
        pad_token="<pad>",
        eos_token="<eos>",
    )


def tiny_model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    )


@pytest.fixture
def prm(tmp_path: Path) -> Path:
    reference = tmp_path / "reference"
    tiny_model(0).save_pretrained(reference)
    tiny_tokenizer().save_pretrained(reference)
    card = PRMCard(
        reference=Reference.local(reference, tmp_path / "prm", weights_hash(reference)),
        beta=0.5,
        objective="ce",
        step_rule="newline",
    )
    save_prm(tiny_model(1), tiny_tokenizer(), card, tmp_path / "prm")
    return tmp_path / "prm"


def test_a_saved_prm_reads_back_with_its_reference_and_hashes(prm: Path) -> None:
    card = PRMCard.read(prm)
    assert (card.beta, card.objective, card.step_rule) == (0.5, "ce", "newline")
    assert card.weights_hash == weights_hash(prm)
    assert card.tokenizer_hash == tokenizer_hash(load_tokenizer(prm))
    assert card.reference is not None
    assert card.reference.weights_hash == weights_hash(prm.parent / "reference")
    trained, loaded = tiny_model(1).state_dict(), load_model(prm).state_dict()
    assert all(torch.equal(trained[name], loaded[name]) for name in trained)


def test_the_reference_is_found_after_both_were_moved(prm: Path, tmp_path: Path) -> None:
    shutil.copytree(prm.parent, tmp_path / "elsewhere" / "run", ignore=shutil.ignore_patterns("elsewhere"))
    moved = tmp_path / "elsewhere" / "run" / "prm"
    reference = PRMCard.read(moved).reference
    assert reference is not None
    assert Path(reference.locate(moved)).resolve() == (moved.parent / "reference").resolve()


def test_another_tokenizer_is_named(prm: Path) -> None:
    card = PRMCard.read(prm)
    card.check(prm, tokenizer_hash=tokenizer_hash(tiny_tokenizer()))
    with pytest.raises(CheckpointError, match="the tokenizer differs from what it was trained with"):
        card.check(prm, tokenizer_hash=tokenizer_hash(tiny_tokenizer("c")))


def test_changed_weights_are_named_with_whatever_else_changed(prm: Path) -> None:
    card = PRMCard.read(prm)
    tiny_model(2).save_pretrained(prm)
    with pytest.raises(CheckpointError, match="the weights differ from what it was trained with"):
        card.check(prm)
    with pytest.raises(CheckpointError, match="the weights and the tokenizer differ from"):
        card.check(prm, tokenizer_hash=tokenizer_hash(tiny_tokenizer("c")))
    for file in prm.glob("*.safetensors"):
        file.unlink()
    card.check(prm)  # the policy is elsewhere, on a server


def test_an_adapter_on_another_base_is_named(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = tmp_path / "base"
    tiny_model(0).save_pretrained(base)
    adapted: Any = get_peft_model(load_model(base), LoraConfig(r=2, target_modules="all-linear"))
    reference = Reference.local(base, tmp_path / "prm", weights_hash(base), adapter_off=True)
    save_prm(adapted, tiny_tokenizer(), PRMCard(reference=reference, beta=0.5), tmp_path / "prm")
    card = PRMCard.read(tmp_path / "prm")
    card.check(tmp_path / "prm")
    tiny_model(1).save_pretrained(base)
    with pytest.raises(CheckpointError, match="the adapter's base differs from what it was trained with"):
        card.check(tmp_path / "prm")


def test_padding_settings_do_not_change_a_tokenizers_hash() -> None:
    tokenizer = tiny_tokenizer()
    before = tokenizer_hash(tokenizer)
    tokenizer(["a", "a b"], padding=True, truncation=True, max_length=3)
    assert tokenizer_hash(tokenizer) == before


def test_the_template_counts_apart_from_the_tokenizer() -> None:
    plain, templated = tiny_tokenizer(), tiny_tokenizer()
    templated.chat_template = "{{ messages }}"
    assert tokenizer_hash(plain) == tokenizer_hash(templated)
    assert template_hash(plain) is None
    assert template_hash(templated) is not None


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda prm: (prm / "prm.json").unlink(), "--reference and --beta"),
        (lambda prm: (prm / "prm.json").write_text("{"), "is not JSON"),
        (lambda prm: (prm / "prm.json").write_text("[]"), "must be a JSON object"),
        (lambda prm: (prm / "prm.json").write_text("{}"), "is not a prm.json"),
        (
            lambda prm: (prm / "prm.json").write_text(json.dumps({"format": 1, "colour": 3})),
            "colour",
        ),
        (lambda prm: (prm / "prm.json").write_text("[" * 100_000), "is nested too deeply"),
        (lambda prm: (prm / "prm.json").write_bytes(b'{"format": 1, "beta": "\xff"}'), "is not JSON"),
        *[
            (lambda prm, field=field: (prm / "prm.json").write_text(json.dumps({"format": 1} | field)), said)
            for field, said in (
                ({"beta": 10**400}, "prm.json: beta: 1000"),
                ({"beta": [1]}, "prm.json: beta: [1] is not a number"),
                ({"step_rule": None}, "prm.json: step_rule: None is not text"),
                ({"settings": 5}, "prm.json: settings: 5 is not a mapping"),
                ({"reference": 5}, "prm.json: reference: must hold"),
                ({"reference": {"source": [5]}}, "prm.json: reference: source: [5] is not text"),
                ({"reference": {"source": "x", "relative_path": {}}}, "relative_path: {} is not text"),
                ({"reference": {"source": "x", "adapter_off": 1}}, "adapter_off: 1 is not true or false"),
                ({"reference": {"relative_path": "x"}}, "reference: source: is missing"),
            )
        ],
    ],
)
def test_a_damaged_card_is_one_clear_line(prm: Path, break_it: object, said: str) -> None:
    break_it(prm)  # type: ignore[operator]
    with pytest.raises(CheckpointError) as error:
        PRMCard.read(prm)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "./x"])
def test_an_unknown_model_is_one_clear_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="is not a model directory"):
        load_model(str(tmp_path / name))


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    tiny_model().config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be loaded as a model"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="holds no weights"):
        weights_hash(tmp_path)
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_tokenizer(tmp_path)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    model = tiny_model()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be loaded as a model"):
        load_model(tmp_path)


def test_weights_are_float32_on_a_cpu_unless_asked_otherwise(tmp_path: Path) -> None:
    model: Any = tiny_model()
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert load_model(tmp_path, device="cpu").dtype == torch.float32
    assert load_model(tmp_path, device="cpu", dtype="bfloat16").dtype == torch.bfloat16


def test_an_adapter_loads_on_its_base(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    tiny_model().save_pretrained(tmp_path / "base")
    lora = LoraConfig(r=2, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted: Any = get_peft_model(load_model(tmp_path / "base"), lora)
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapted.save_pretrained(str(tmp_path / "adapter"))
    tokens = torch.tensor([[2, 3, 2]])
    loaded = load_model(tmp_path / "adapter")
    with torch.no_grad():
        assert torch.allclose(loaded(tokens).logits, adapted.eval()(tokens).logits)
        assert not torch.allclose(loaded(tokens).logits, tiny_model()(tokens).logits, atol=1e-3)
