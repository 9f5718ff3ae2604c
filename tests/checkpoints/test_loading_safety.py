"""Files that can run code are read only when that is asked for, and then with a warning."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from stepcredit.checkpoints import LoadOptions, content_hash, load_model, resolve, weights_hash
from stepcredit.errors import CheckpointError
from stepcredit.scorers.options import ScorerOptions


@pytest.fixture
def pickled(tmp_path: Path, make_model: Any) -> Path:
    """A checkpoint whose weights are a pickle file."""
    model = make_model(1)
    model.config.save_pretrained(str(tmp_path / "pickled"))
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    return tmp_path / "pickled"


def test_pickled_weights_load_by_flag_with_a_warning(
    pickled: Path, make_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match="safetensors"):
        load_model(pickled)
    loaded = load_model(pickled, allow_pickle=True)
    assert "can run any code" in capsys.readouterr().err
    expected = make_model(1).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert weights_hash(pickled).startswith("sha256:")


def test_a_pickled_adapter_loads_by_flag_only(tmp_path: Path, make_model: Any) -> None:
    make_model(2).save_pretrained(str(tmp_path / "base"))
    base = load_model(tmp_path / "base")
    adapted: Any = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear"))
    adapted.save_pretrained(str(tmp_path / "adapter"), safe_serialization=False)
    assert (tmp_path / "adapter" / "adapter_model.bin").is_file()
    with pytest.raises(CheckpointError, match=r"no adapter_model.safetensors.*--allow-pickle"):
        load_model(tmp_path / "adapter")
    assert hasattr(load_model(tmp_path / "adapter", allow_pickle=True), "disable_adapter")
    assert weights_hash(tmp_path / "adapter") != weights_hash(tmp_path / "base")


def test_what_is_fetched_from_the_hub_grows_only_by_flag() -> None:
    assert LoadOptions().unsafe_patterns == ()
    assert LoadOptions(trust_remote_code=True, allow_pickle=True).unsafe_patterns == ("*.py", "*.bin")


def test_a_model_on_a_server_is_fetched_without_its_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_tokenizer: Any
) -> None:
    make_tokenizer().save_pretrained(str(tmp_path))
    fetched: list[tuple[str, str | None, list[str]]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        fetched.append((name, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    server = "http://127.0.0.1:9/v1#large"
    words = ScorerOptions(prm="some/prm", beta=0.1, policy_server=server, reference_server=server)
    words.load_scorer()
    assert {name for name, *_ in fetched} == {"some/prm"}
    assert all("*.safetensors" not in patterns and "*.gguf" not in patterns for *_, patterns in fetched)
    assert resolve("some/prm", revision="x", also=("*.bin",)) == tmp_path
    name, revision, patterns = fetched[-1]
    assert (name, revision) == ("some/prm", "x")
    assert {"*.safetensors", "*.bin"} <= set(patterns)


@pytest.fixture
def hub_of_pickles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pickled: Path) -> str:
    """A hub model that has pickled weights only; gives what is asked for, as the hub does."""

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        fetched = tmp_path / "fetched" / "-".join(sorted(allow_patterns)).replace("*", "all")
        fetched.mkdir(parents=True, exist_ok=True)
        for file in pickled.iterdir():
            if any(file.match(pattern) for pattern in allow_patterns):
                shutil.copy(file, fetched)
        return str(fetched)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return "some/base"


@pytest.fixture
def adapter_of_pickles(tmp_path: Path, make_model: Any, make_tokenizer: Any, hub_of_pickles: str) -> Path:
    """An adapter, with safetensors, of that model."""
    torch.manual_seed(3)
    adapted: Any = get_peft_model(
        make_model(1), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    )
    adapted.peft_config["default"].base_model_name_or_path = hub_of_pickles
    adapted.save_pretrained(str(tmp_path / "adapter"))
    make_tokenizer().save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def test_an_adapter_of_a_pickled_base_is_scored_named_and_found_again_by_flag_only(
    adapter_of_pickles: Path, tmp_path: Path, make_model: Any, make_tokenizer: Any
) -> None:
    words = ScorerOptions(prm=str(adapter_of_pickles), beta=1.0, load=LoadOptions(allow_pickle=True))
    score = words.load_scorer().score("3 + 4?", "7")
    adapted: Any = load_model(adapter_of_pickles, words.load)
    adapted.merge_and_unload().save_pretrained(str(tmp_path / "merged"))
    make_model(1).save_pretrained(str(tmp_path / "base"))
    for name in ("merged", "base"):
        make_tokenizer().save_pretrained(str(tmp_path / name))
    plain = ScorerOptions(prm=str(tmp_path / "merged"), reference=str(tmp_path / "base"), beta=1.0)
    assert score.reward == pytest.approx(plain.load_scorer().score("3 + 4?", "7").reward, abs=1e-5)
    assert abs(score.reward) > 1e-3
    assert words.determining()["prm"] == content_hash(adapter_of_pickles, also=("*.bin",))
    with pytest.raises(CheckpointError, match=r"holds no weights.*--allow-pickle"):
        ScorerOptions(prm=str(adapter_of_pickles), beta=1.0).load_scorer()


def test_an_adapters_hash_is_of_itself_and_its_base(adapter_of_pickles: Path, pickled: Path) -> None:
    also = LoadOptions(allow_pickle=True).unsafe_patterns
    assert content_hash(pickled) == weights_hash(pickled)
    whole = content_hash(adapter_of_pickles, also=also)
    assert whole not in (weights_hash(pickled), weights_hash(adapter_of_pickles))


def test_a_changed_file_gets_a_new_hash(tmp_path: Path, make_model: Any) -> None:
    make_model(1).save_pretrained(str(tmp_path / "model"))
    before = weights_hash(tmp_path / "model")
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    assert weights_hash(tmp_path / "copy") == before
    make_model(2).save_pretrained(str(tmp_path / "model"))
    assert weights_hash(tmp_path / "model") != before


def test_code_that_comes_with_a_model_does_not_run_unasked(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(f"open({str(marker)!r}, 'w')")
    (tmp_path / "config.json").write_text(
        '{"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}'
    )
    with pytest.raises(CheckpointError, match=r"custom code.*--trust-remote-code"):
        load_model(tmp_path)
    assert not marker.exists()
