"""Models by name: what is fetched from the hub, what a saved PRM remembers, what runs only by flag."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch

from stepcredit.checkpoints import LoadOptions, PRMCard, load_model, weights_hash
from stepcredit.cli import main
from stepcredit.data import rollout_to_json, write_rows
from stepcredit.training.config import TrainConfig
from stepcredit.training.sources import Sources
from stepcredit.types import Rollout

COMMIT = "0123456789abcdef"


@pytest.fixture
def graded(tmp_path: Path, rollouts: list[Rollout]) -> Path:
    write_rows(tmp_path / "graded.jsonl", map(rollout_to_json, rollouts))
    return tmp_path / "graded.jsonl"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for the hub; what is fetched comes to a cache as the hub's library keeps it."""
    there = tmp_path / "hub"

    def fetch(name: str, *, revision: str | None, allow_patterns: Sequence[str]) -> str:
        branch = (revision or "main").removeprefix(f"{COMMIT}-")
        source = there / name / branch
        if not source.is_dir():
            raise FileNotFoundError(name)
        commit = f"{COMMIT}-{branch}"
        here = tmp_path / "cache" / name.replace("/", "--") / "snapshots" / commit
        here.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, here)
        return str(here)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    return there


def put(hub: Path, name: str, model: Path, revision: str = "main", *, pickled: bool = False) -> None:
    directory = hub / name / revision
    shutil.copytree(model, directory)
    if pickled:
        torch.save(load_model(model, device="cpu").state_dict(), directory / "pytorch_model.bin")
        (directory / "model.safetensors").unlink()


def train(graded: Path, model: str, out: str, *more: str) -> int:
    words = ["train", str(graded), "--model", model, "--out", out, "--steps", "newline", "--device", "cpu"]
    return main([*words, "--learning-rate", "1e-3", *more])


def test_the_hubs_name_and_commit_are_remembered_not_the_caches_place(
    hub: Path, tiny_model: Path, graded: Path, tmp_path: Path
) -> None:
    put(hub, "me/model", tiny_model, "v1")
    assert train(graded, "me/model", "prm", "--revision", "v1", "--lora-rank", "2") == 0
    reference = PRMCard.read("prm").reference
    assert reference is not None
    assert (reference.source, reference.revision) == ("me/model", f"{COMMIT}-v1")
    assert reference.weights_hash == weights_hash(tiny_model)
    adapter = json.loads(Path("prm/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "me/model"
    assert str(tmp_path) not in Path("prm/README.md").read_text().replace(str(graded), "")


def test_the_revision_is_the_models_not_another_references(hub: Path, tiny_model: Path, graded: Path) -> None:
    put(hub, "me/model", tiny_model, "v1")
    put(hub, "me/reference", tiny_model)
    assert train(graded, "me/model", "prm", "--revision", "v1", "--reference", "me/reference") == 0
    reference = PRMCard.read("prm").reference
    assert reference is not None
    assert (reference.source, reference.revision) == ("me/reference", f"{COMMIT}-main")


def test_a_prm_on_the_hub_brings_its_reference(hub: Path, tiny_model: Path, graded: Path) -> None:
    put(hub, "me/model", tiny_model)
    assert train(graded, "me/model", "first") == 0
    put(hub, "me/first", Path("first"))
    sources = Sources.find("me/first", None, TrainConfig(), LoadOptions())
    assert sources.other_reference is not None
    assert sources.other_reference.name == "me/model"
    assert sources.other_reference.weights_hash == weights_hash(tiny_model)


def test_pickled_weights_of_the_hub_are_fetched_and_read_by_flag(
    hub: Path, tiny_model: Path, graded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(hub, "me/pickled", tiny_model, pickled=True)
    assert train(graded, "me/pickled", "prm") == 2
    assert "--allow-pickle" in capsys.readouterr().err
    assert train(graded, "me/pickled", "prm", "--allow-pickle") == 0
    assert "can run any code" in capsys.readouterr().err
    assert Path("prm/model.safetensors").is_file()


def test_pickled_weights_of_a_directory_are_read_by_flag(
    hub: Path, tiny_model: Path, graded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(hub, "me/pickled", tiny_model, pickled=True)
    local = str(hub / "me" / "pickled" / "main")
    assert train(graded, local, "prm") == 2
    assert "--allow-pickle" in capsys.readouterr().err
    assert train(graded, local, "prm", "--allow-pickle") == 0


def test_code_that_comes_with_a_model_runs_by_flag(
    hub: Path,
    tiny_model: Path,
    graded: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    put(hub, "me/own", tiny_model)
    directory = hub / "me" / "own" / "main"
    code = f"""
from transformers import LlamaConfig, LlamaForCausalLM
open({str(tmp_path / "ran")!r}, "a").write("x")
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""
    (directory / "own.py").write_text(code)
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "own", "architectures": ["OwnModel"]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (directory / "config.json").write_text(json.dumps(config))
    assert train(graded, "me/own", "prm") == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert train(graded, "me/own", "prm", "--trust-remote-code") == 0
    assert "runs Python code that came with the model" in capsys.readouterr().err
    assert (tmp_path / "ran").exists()


def test_a_dry_run_reads_no_weights(
    hub: Path, tiny_model: Path, graded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(hub, "me/model", tiny_model)
    (hub / "me" / "model" / "main" / "model.safetensors").unlink()
    parameters: Any = load_model(tiny_model, device="cpu").num_parameters()
    assert train(graded, "me/model", "prm", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["examples"] == 24
    assert plan["assumptions"]["parameters"] == parameters
    assert plan["assumptions"]["data_counted"] is True
