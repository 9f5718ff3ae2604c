"""Every form in which a checkpoint may lie on disk gives the scores of the plain one."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from gguf.quants import dequantize, quantize
from peft import AdaptionPromptConfig, LoraConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from stepcredit import ImplicitPRM
from stepcredit.checkpoints import LoadOptions, PRMCard, save_prm
from stepcredit.cli import main
from stepcredit.errors import CheckpointError, MissingExtraError, UserError
from stepcredit.logprobs import CachedTokenLogProbs, DeferredTokenLogProbs, LocalTokenLogProbs
from stepcredit.scorers import load_scorer
from stepcredit.types import Encoded, ResponseScore

BETA = 0.3
PROMPT = "Tom had 3 boxes."
RESPONSE = "He had 3.\nThen he got 9 more.\n12"
Pair = tuple[Path, Path]


def score(policy: Path, reference: Path | None, **options: Any) -> ResponseScore:
    prm = ImplicitPRM.from_pretrained(policy, reference, BETA, steps="newline", **options)
    return prm.score(PROMPT, RESPONSE)


def rewards(score: ResponseScore) -> list[float]:
    return [step.reward for step in score.steps]


def from_command_line(folder: Path, policy: Path, reference: Path, *flags: str) -> list[float]:
    """Step rewards of :data:`RESPONSE`, through files."""
    row = {"id": "a", "prompt_id": "p", "prompt": PROMPT, "response": RESPONSE}
    (folder / "rollouts.jsonl").write_text(json.dumps(row))
    words = ["score", str(folder / "rollouts.jsonl"), "--prm", str(policy), "--reference", str(reference)]
    words += ["--beta", str(BETA), "--steps", "newline", "--out", str(folder / "scores.jsonl"), *flags]
    assert main(words) == 0
    (scored,) = map(json.loads, (folder / "scores.jsonl").read_text().splitlines())
    return [step["reward"] for step in scored["steps"]]


def write_gguf(path: Path, model: Any, tokenizer: Any, kind: gguf.GGMLQuantizationType) -> None:
    """A model and its byte-level tokenizer as llama.cpp's converter writes them."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids) | {token["id"] for token in rules["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama3")
    writer.add_token_list([names.get(index, f"[PAD{index}]") for index in range(config.vocab_size)])
    types = gguf.TokenType
    writer.add_token_types(
        [
            types.CONTROL if index in special else types.NORMAL if index in names else types.UNUSED
            for index in range(config.vocab_size)
        ]
    )
    writer.add_token_merges([" ".join(pair) for pair in rules["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stored = stored_tensor(name, tensor, config, kind)
        is_plain = stored.dtype == np.float32
        writer.add_tensor(gguf_name(name), stored, raw_dtype=None if is_plain else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 8)
    tensor = names.get_name(name, try_suffixes=(".weight",))
    assert tensor is not None, name
    return str(tensor)


def stored_tensor(name: str, tensor: torch.Tensor, config: Any, kind: gguf.GGMLQuantizationType) -> Any:
    """Queries and keys with their halves interleaved; matrices quantised, vectors not."""
    values = tensor.numpy()
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, count in heads.items():
        if part in name:
            values = values.reshape(count, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    return quantize(np.ascontiguousarray(values), kind) if values.ndim == 2 else values


@pytest.mark.parametrize(("kind", "tied"), [("F32", True), ("Q8_0", False)])
def test_gguf_files(tmp_path: Path, make_tokenizer: Callable[..., Any], kind: str, tied: bool) -> None:
    torch.manual_seed(0)
    quantisation = gguf.GGMLQuantizationType[kind]
    config = LlamaConfig(
        vocab_size=340,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        tie_word_embeddings=tied,
    )
    plain, files = [], []
    for name in ("policy", "reference"):
        model: Any = LlamaForCausalLM(config).eval()
        write_gguf(tmp_path / f"{name}.gguf", model, make_tokenizer(), quantisation)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    rounded = dequantize(quantize(parameter.numpy(), quantisation), quantisation)
                    parameter.copy_(torch.from_numpy(np.ascontiguousarray(rounded)))
        model.save_pretrained(str(tmp_path / name))
        make_tokenizer().save_pretrained(str(tmp_path / name))
        plain.append(tmp_path / name)
        files.append(tmp_path / f"{name}.gguf")
    expected = rewards(score(plain[0], plain[1]))
    assert from_command_line(tmp_path, files[0], files[1]) == pytest.approx(expected, abs=1e-4)
    (tmp_path / "folder").mkdir()
    shutil.move(files[0], tmp_path / "folder" / "model.gguf")
    assert rewards(score(tmp_path / "folder", files[1])) == pytest.approx(expected, abs=1e-4)


def test_gguf_files_need_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="no tokenizer that can be loaded"):
        score(tmp_path / "model.gguf", tmp_path / "model.gguf")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(MissingExtraError, match=r"model\.gguf needs the package 'gguf'.*stepcredit\[gguf\]"):
        score(tmp_path / "model.gguf", tmp_path / "model.gguf")


def test_weights_in_several_files(tmp_path: Path, saved_pair: Pair, make_model: Callable[..., Any]) -> None:
    expected = rewards(score(*saved_pair))
    policy = saved_pair[0]
    (policy / "model.safetensors").unlink()
    make_model(0).save_pretrained(str(policy), max_shard_size="20KB")
    assert len(list(policy.glob("model-*.safetensors"))) > 2
    assert from_command_line(tmp_path, *saved_pair) == pytest.approx(expected, abs=1e-6)
    next(policy.glob("model-*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded as a model"):
        score(*saved_pair)


@pytest.mark.parametrize("device_map", ["auto", "cpu", "sequential"])
def test_a_device_map(tmp_path: Path, saved_pair: Pair, device_map: str) -> None:
    expected = rewards(score(*saved_pair))
    computed = from_command_line(tmp_path, *saved_pair, "--device-map", device_map)
    assert computed == pytest.approx(expected, abs=1e-5)


def test_weights_that_are_brought_only_while_they_are_used(
    saved_pair: Pair, make_model: Callable[..., Any]
) -> None:
    encoded = [Encoded(tuple(range(5, 30)), 10), Encoded(tuple(range(5, 20)), 3)]
    expected = LocalTokenLogProbs(make_model(0), weights_hash="x").of(encoded)
    model: Any = cpu_offload(make_model(0), execution_device="cpu")
    assert model.lm_head.weight.is_meta
    for one, other in zip(LocalTokenLogProbs(model, weights_hash="x").of(encoded), expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:7"}, "--device: 'cuda:7' cannot be used here"),
        ({"device": "abacus"}, "--device: 'abacus' cannot be used here"),
        ({"device": "cpu", "device_map": "auto"}, "--device: cannot be given with --device-map"),
        ({"device_map": "everywhere"}, "cannot be loaded as a model"),
        ({"attention": "by_hand"}, "cannot be loaded as a model"),
    ],
)
def test_devices_and_attention_that_are_not_there(
    saved_pair: Pair, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        score(*saved_pair, load=LoadOptions(**options))
    assert "\n" not in str(caught.value)


def test_lower_precision_is_near(saved_pair: Pair) -> None:
    expected = rewards(score(*saved_pair))
    assert rewards(score(*saved_pair, load=LoadOptions(dtype="bfloat16"))) == pytest.approx(expected, abs=0.3)


@pytest.fixture
def adapter(saved_pair: Pair, tmp_path: Path) -> Path:
    """A LoRA adapter of the policy, saved by peft alone: without tokenizer."""
    torch.manual_seed(3)
    adapted: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(str(saved_pair[0])),
        LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
    )
    adapted.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def test_an_adapter_without_a_tokenizer_has_its_bases(
    adapter: Path, saved_pair: Pair, tmp_path: Path
) -> None:
    switched_off = score(adapter, None)
    assert abs(switched_off.reward) > 1e-3
    computed = from_command_line(tmp_path, adapter, saved_pair[0])
    assert computed == pytest.approx(rewards(switched_off), abs=1e-5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is nested too deeply"),
        ("[]", "must be a JSON object"),
        ("{}", "does not name its base model"),
        ('{"base_model_name_or_path": null}', "does not name its base model"),
    ],
    ids=range(5),
)
def test_an_adapter_that_names_no_base(adapter: Path, content: str, said: str) -> None:
    (adapter / "adapter_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"adapter_config\.json: {said}"):
        score(adapter, None)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": [60, 61]},
    ],
    ids=["lora", "tokens"],
)
def test_adapters_of_embeddings(saved_pair: Pair, tmp_path: Path, settings: Any) -> None:
    policy, _ = saved_pair
    adapted: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(str(policy)), LoraConfig(r=2, **settings)
    )
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.fill_(0.3)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    adapted.merge_and_unload().save_pretrained(str(tmp_path / "merged"))
    for file in [*policy.glob("*token*"), *policy.glob("*.jinja")]:
        shutil.copy(file, tmp_path / "merged")
    expected = rewards(score(tmp_path / "merged", policy))
    assert rewards(score(tmp_path / "adapter", policy)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
        PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=8, task_type="CAUSAL_LM"),
        AdaptionPromptConfig(adapter_len=4, adapter_layers=2, task_type="CAUSAL_LM"),
    ],
    ids=["prompt", "p", "adaption"],
)
def test_adapters_that_put_tokens_into_the_sequence_are_refused(
    saved_pair: Pair, tmp_path: Path, config: Any
) -> None:
    adapted: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(str(saved_pair[0])), config)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(CheckpointError, match="puts learned tokens into the sequence"):
        score(tmp_path / "adapter", saved_pair[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"bias": "all"},
        {"bias": "lora_only"},
        {"init_lora_weights": "pissa"},
        {"layer_replication": [(0, 2), (1, 2)]},
    ],
    ids=["bias-all", "bias-lora_only", "pissa", "layers"],
)
def test_the_reference_of_an_adapter_is_its_base_even_if_switching_it_off_does_not_give_it(
    tmp_path: Path, make_model: Callable[..., Any], make_tokenizer: Callable[..., Any], settings: Any
) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    config = make_model(0).config
    config.attention_bias = True
    LlamaForCausalLM(config).save_pretrained(str(base))
    make_tokenizer().save_pretrained(str(base))
    adapted: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(str(base)),
        LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **settings),
    )
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    adapted.save_pretrained(str(adapter))
    expected = score(adapter, base)
    assert abs(expected.reward) > 1e-3
    assert rewards(score(adapter, None)) == pytest.approx(rewards(expected), abs=1e-6)


def test_an_adapter_of_another_base(adapter: Path, saved_pair: Pair) -> None:
    config = LlamaConfig(vocab_size=340, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    LlamaForCausalLM(config).save_pretrained(str(saved_pair[0]))
    with pytest.raises(CheckpointError, match="cannot be loaded as an adapter of"):
        score(adapter, None)


def test_pickled_weights_by_flag_only(
    saved_pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_model: Callable[..., Any]
) -> None:
    expected = rewards(score(*saved_pair))
    (saved_pair[0] / "model.safetensors").unlink()
    torch.save(make_model(0).state_dict(), saved_pair[0] / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors"):
        score(*saved_pair)
    assert from_command_line(tmp_path, *saved_pair, "--allow-pickle") == pytest.approx(expected, abs=1e-6)
    assert "--allow-pickle reads files that can run any code" in capsys.readouterr().err


def test_code_that_comes_with_a_model_by_flag_only(
    saved_pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    expected = rewards(score(*saved_pair))
    policy = saved_pair[0]
    (policy / "mine.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class MineConfig(LlamaConfig):\n    model_type = 'mine'\n"
        "class Mine(LlamaForCausalLM):\n    config_class = MineConfig\n"
    )
    config = json.loads((policy / "config.json").read_text())
    config |= {"model_type": "mine", "architectures": ["Mine"]}
    config["auto_map"] = {"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.Mine"}
    (policy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="--trust-remote-code if you trust"):
        score(*saved_pair)
    assert from_command_line(tmp_path, *saved_pair, "--trust-remote-code") == pytest.approx(
        expected, abs=1e-6
    )
    assert "--trust-remote-code runs Python code that came with the model" in capsys.readouterr().err


def test_a_reference_in_the_cache_is_not_loaded(
    saved_pair: Pair, tmp_path: Path, make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = score(*saved_pair, cache=tmp_path / "cache")
    make_model(5).save_pretrained(str(saved_pair[0]))  # another policy, the same reference
    prm = ImplicitPRM.from_pretrained(*saved_pair, BETA, steps="newline", cache=tmp_path / "cache")
    computed = prm.score(PROMPT, RESPONSE)
    assert computed.reward != expected.reward
    assert rewards(computed) == pytest.approx(rewards(score(*saved_pair)), abs=1e-5)
    assert isinstance(prm.reference, CachedTokenLogProbs)
    inner = prm.reference.inner
    assert isinstance(inner, DeferredTokenLogProbs)
    loaded = [inner.is_loaded]
    prm.score(PROMPT, "Something else.")
    assert [*loaded, inner.is_loaded] == [False, True]
    make_model(6).save_pretrained(str(saved_pair[1]))
    again = score(*saved_pair, cache=tmp_path / "cache")
    assert rewards(again) == pytest.approx(rewards(score(*saved_pair)), abs=1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_weights_that_are_no_numbers(saved_pair: Pair, which: int, make_model: Callable[..., Any]) -> None:
    model = make_model(which)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained(str(saved_pair[which]))
    where = saved_pair[which].name
    with pytest.raises(CheckpointError, match=f"{where}: gives log-probabilities that are not numbers"):
        score(*saved_pair)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda folder: [file.unlink() for file in folder.glob("*token*")],
            "no tokenizer that can be loaded",
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "no tokenizer that can be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON|not a valid JSON"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be loaded as a model"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100),
            "cannot be loaded as a model",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_damaged_checkpoints_are_reported_in_one_line(
    saved_pair: Pair,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    break_it: Callable[[Path], object],
    message: str,
    which: int,
) -> None:
    break_it(saved_pair[which])
    row = {"id": "a", "prompt_id": "p", "prompt": PROMPT, "response": RESPONSE}
    (tmp_path / "rollouts.jsonl").write_text(json.dumps(row))
    words = ["score", str(tmp_path / "rollouts.jsonl"), "--prm", str(saved_pair[0])]
    words += ["--reference", str(saved_pair[1]), "--beta", "1", "--out", str(tmp_path / "scores.jsonl")]
    assert main(words) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stepcredit")]
    assert len(error) == 1
    assert saved_pair[which].name in error[0]
    assert re.search(message, error[0])


@pytest.mark.parametrize("template", [None, "{% if", "{{ raise_exception('no') }}"])
def test_a_chat_template_that_is_missing_or_broken(saved_pair: Pair, template: str | None) -> None:
    file = saved_pair[0] / "chat_template.jinja"
    file.unlink()
    if template is not None:
        file.write_text(template)
    with pytest.raises(UserError, match="chat template") as caught:
        score(*saved_pair)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["token-classifier", "value-head", "orm", "qwen-prm", "skywork-prm"])
def test_a_head_that_is_not_there_is_not_made_up(saved_pair: Pair, family: str) -> None:
    with pytest.raises(
        CheckpointError, match=r"policy: (lacks weights of a Llama.*score\.weight|has no head)"
    ):
        load_scorer(saved_pair[0], family=family)


def test_a_backbone_is_no_language_model(saved_pair: Pair, make_model: Callable[..., Any]) -> None:
    make_model(0).model.save_pretrained(str(saved_pair[0]))
    with pytest.raises(CheckpointError, match=r"lacks weights of a LlamaForCausalLM: lm_head\.weight"):
        score(*saved_pair)


@pytest.mark.parametrize("beta", ["x", [1], 0, -1])
def test_a_card_whose_beta_is_no_scale(
    saved_pair: Pair, make_model: Callable[..., Any], make_tokenizer: Callable[..., Any], beta: Any
) -> None:
    save_prm(make_model(0), make_tokenizer(), PRMCard(beta=beta), saved_pair[0])
    with pytest.raises(UserError, match=r"beta: .* is not a number|--beta: must be above 0"):
        ImplicitPRM.from_pretrained(saved_pair[0], saved_pair[1])
