"""What goes wrong around a training run is reported in one line, and nothing that was done is lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, safe_open
from tests.training.conftest import make_rollouts, save_tiny_model

from stepcredit.cli import main
from stepcredit.data import rollout_to_json, write_rows
from stepcredit.training import saving
from stepcredit.training.trainer import PRMTrainer

COMMAND = ["--steps", "newline", "--device", "cpu", "--learning-rate", "1e-3", "--batch-size", "8"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with ``model`` and ``graded.jsonl``."""
    monkeypatch.chdir(tmp_path)
    save_tiny_model(tmp_path / "model")
    write_rows("graded.jsonl", map(rollout_to_json, make_rollouts(4, 4)))
    return tmp_path


def train(*more: str, model: str = "model") -> int:
    return main(["train", "graded.jsonl", "--model", model, "--out", "prm", *COMMAND, *more])


def refused(capsys: pytest.CaptureFixture[str], *more: str, model: str = "model") -> str:
    """Run a command that must fail; gives its one line."""
    assert train(*more, model=model) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("stepcredit: error: ")]
    assert len(lines) == 1
    assert error.splitlines()[-1] == lines[0]
    assert not Path("prm").exists()
    return lines[0]


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("model", "model: is the input itself"),
        (".", "has the input model in it"),
        ("notes", "notes: is a folder that no command made"),
    ],
)
def test_overwrite_spares_the_model_and_folders_of_others(
    out: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes").mkdir()
    Path("notes", "mine.txt").write_text("mine")
    before = sorted(place.rglob("*"))
    assert said in refused(capsys, "--out", out, "--overwrite")
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("learning_rat: 1.0e-3", "learning_rate"),
        ("epochs: many", "epochs"),
        ("objective: best", "one of ce"),
        ("config: {betta: 1}", "beta"),
        ("[ce]", "name: value"),
    ],
)
def test_a_config_that_cannot_be_meant(
    content: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(content)
    line = refused(capsys, "--config", "mine.yaml")
    assert "mine.yaml" in line
    assert said in line


def test_a_tokenizer_without_a_chat_template(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model/chat_template.jinja").unlink()
    assert "chat template" in refused(capsys)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_model_with_a_file_missing_or_broken(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("model", name).write_text("{")
    assert "model" in refused(capsys)
    Path("model", name).unlink()
    assert "model" in refused(capsys)


def test_an_adapter_on_another_base(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--lora-rank", "2") == 0
    shutil.move("prm", "adapter")
    save_tiny_model(place / "model", seed=1)
    rows = ["score", "graded.jsonl", "--prm", "adapter", "--out", "scores.jsonl", "--device", "cpu"]
    capsys.readouterr()
    assert main(rows) == 2
    assert "the adapter's base differs from what it was trained with" in capsys.readouterr().err
    shutil.rmtree("model")
    assert "model" in refused(capsys, "--lora-rank", "2", model="adapter")


def test_a_reference_with_another_tokenizer(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("model", "other")
    rules = json.loads(Path("other/tokenizer.json").read_text())
    ids = rules["model"]["vocab"]
    ids["3"], ids["4"] = ids["4"], ids["3"]
    Path("other/tokenizer.json").write_text(json.dumps(rules))
    assert "other: its tokenizer differs from the PRM's" in refused(capsys, "--reference", "other")
    assert not Path("prm.partial").exists()


def test_settings_that_are_not_those_of_the_adapter_that_is_trained_further(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rank, targets = ["--lora-rank", "2"], ["--lora-targets", "q_proj,v_proj"]
    assert train(*rank, *targets, "--lora-alpha", "2") == 0
    shutil.move("prm", "adapter")
    for flag, value, said in (
        ("--lora-rank", "4", "has rank 2, not 4"),
        ("--lora-alpha", "64", "has alpha 2, not 64"),
        ("--lora-dropout", "0.5", "has dropout 0.0, not 0.5"),
        ("--lora-targets", "q_proj", "has targets q_proj,v_proj, not q_proj"),
    ):
        capsys.readouterr()
        line = refused(capsys, *rank, flag, value, model="adapter")
        assert f"{flag}: the adapter that training starts from {said}" in line
    same = ["--lora-targets", "v_proj,q_proj", "--lora-alpha", "2"]
    assert train(*rank, *same, model="adapter") == 0
    assert train(*rank, "--overwrite", model="adapter") == 0


def test_a_beta_that_is_not_that_of_the_first_stage_is_reported(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--beta", "1") == 0
    shutil.move("prm", "first")
    said = "warning: --beta is 0.05, but the PRM that training starts from has 1.0: its rewards are scaled"
    assert train(model="first") == 0
    assert said in capsys.readouterr().err
    assert train("--beta", "1", "--overwrite", model="first") == 0
    assert train("--family", "value-head", "--overwrite", model="first") == 0
    assert "warning: --beta" not in capsys.readouterr().err


def test_weights_that_are_not_the_cards(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train() == 0
    shutil.copy("model/model.safetensors", "prm/model.safetensors")
    capsys.readouterr()
    assert main(["score", "graded.jsonl", "--prm", "prm", "--out", "scores.jsonl", "--device", "cpu"]) == 2
    assert "the weights differ from what it was trained with" in capsys.readouterr().err


def test_a_disk_that_is_full_at_the_end_costs_no_training(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_prm", full)
        line = refused(capsys)
    assert "No space left on device" in line
    assert "run the same command again" in line
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []

    def no_step(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(PRMTrainer, "training_step", no_step)
    assert train() == 0
    manifest = json.loads(Path("prm/manifest.json").read_text())
    assert manifest["kept_step"] == 2
    assert manifest["ledger"]["trained_tokens"] > 0


def test_an_output_below_a_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "graded.jsonl", "--model", "model", "--out", "graded.jsonl/prm", *COMMAND]
    assert main(words) == 2
    assert "graded.jsonl" in capsys.readouterr().err


def test_a_rate_that_cannot_be_meant_is_reported(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--learning-rate", "5") == 0
    assert (
        "warning: --learning-rate 5 is far above the usual range for language models"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("command", [["train"], ["label", "math-shepherd"]])
def test_help_lists_the_step_rules(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # no word is broken
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "numbered-list, sentence, code, thinking, turn, separator:TEXT" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--lora-targets q_proj", "--lora-targets: is of adapters, and none is trained"),
        ("--lora-rank 2 --lora-targets q_proj,v_porj", "--lora-targets: no module is called 'v_porj'"),
        ("--lora-rank 2 --lora-alpha 0", "--lora-alpha: must be above 0"),
        ("--adam-beta1 1", "--adam-beta1: must lie in [0, 1)"),
        ("--patience 2", "--patience: needs --dev"),
        ("--dtype bfloat16", "--dtype: does not apply to training"),
        ("--device-map auto", "--device-map: does not apply to training"),
    ],
)
def test_an_option_without_an_effect_is_refused(
    given: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, *given.split())


def test_names_of_modules_may_stand_apart(place: Path) -> None:
    assert train("--lora-rank", "2", "--lora-targets", "q_proj, v_proj") == 0
    with safe_open("prm/adapter_model.safetensors", "pt") as file:
        assert {name.split(".")[-3] for name in file.keys()} == {"q_proj", "v_proj"}  # noqa: SIM118


@pytest.mark.parametrize(
    ("correct", "said"),
    [
        (True, "--dev: all 4 usable responses are right"),
        (False, "--dev: all 4 usable responses are wrong"),
        (None, "--dev: none of 4 rollouts can be used (4 not graded)"),
        ("no rows", "dev.jsonl: there are no rollouts to measure on"),
    ],
)
def test_held_out_responses_that_tell_nothing_are_refused(
    correct: bool | str | None, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No weights could be chosen by them, and the last ones were kept without a word."""
    rows = [] if isinstance(correct, str) else [replace(row, correct=correct) for row in make_rollouts(2, 2)]
    write_rows("dev.jsonl", map(rollout_to_json, rows))
    assert said in refused(capsys, "--dev", "dev.jsonl")


def test_held_out_responses_that_are_left_out_are_shown(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rollouts(4, 4)
    write_rows("dev.jsonl", map(rollout_to_json, [replace(rows[0], correct=None), *rows[1:]]))
    assert train("--dev", "dev.jsonl") == 0
    assert "  of 16 held-out rollouts: 1 not graded\n" in capsys.readouterr().out


@pytest.mark.parametrize("given", [("--objective", "dpo"), ("--balance", "instruction")])
def test_other_problems_of_one_prompt_id_are_not_compared(
    given: tuple[str, str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [replace(row, prompt=f"{row.index} {row.prompt}") for row in make_rollouts(4, 4)]
    write_rows("graded.jsonl", map(rollout_to_json, rows))
    assert "graded.jsonl: 'train0-1' has another prompt than the rows before it" in refused(capsys, *given)
