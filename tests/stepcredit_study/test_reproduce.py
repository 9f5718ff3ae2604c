"""``stepcredit reproduce`` from the command line, with an experiment that costs nothing."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from stepcredit.cli import main
from stepcredit_study import reproduce
from stepcredit_study.frame import running
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.seeds import Seeds, is_above
from stepcredit_study.pages.finding import Check, Finding, Table, format_estimate


def conclude(seeds: Seeds, scale: Any) -> Finding:
    gain = seeds.of("gain")
    return Finding(
        name="voting",
        title="Made up",
        purpose="To see.",
        differs="Everything.",
        tables=(Table(title="Gain", columns=("here",), rows=(("it", (gain,)),)),),
        checks=(Check(claim="It gains.", paper="1", here=format_estimate(gain), verdict=is_above(gain)),),
    )


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In the place of ``voting``, measured in this process; the seeds that were measured."""
    measured: list[int] = []

    def measure(world: Any, files: Any) -> dict[str, float]:
        measured.append(world.seed)
        return {"gain": 0.5 + world.seed / 1024}

    module = types.ModuleType("voting")
    module.EXPERIMENT = Experiment(  # type: ignore[attr-defined]
        "voting", lambda world: None, measure, conclude
    )
    monkeypatch.setitem(sys.modules, "stepcredit_study.claims.voting", module)
    monkeypatch.setattr(
        running, "_measured", lambda stages, jobs: ((stage, running.measure(stage)) for stage in stages)
    )
    return measured


def test_it_prints_and_writes_what_it_found(
    made_up: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, published = tmp_path / "out", tmp_path / "results"
    words = ["reproduce", "voting", "--seeds", "3", "--out", str(out), "--publish", str(published)]
    assert main([*words, "--size", "train_prompts=7"]) == 0
    text = capsys.readouterr().out
    assert "[holds] It gains." in text
    assert text.endswith(f"report: {out / 'report.html'}\n")
    assert made_up == [0, 1, 2]
    for folder in (out, published):
        content = json.loads((folder / "voting" / "results.json").read_text())
        assert [measurement["gain"] for measurement in content["measurements"]] == [
            0.5,
            0.5 + 1 / 1024,
            0.5 + 2 / 1024,
        ]
        settings = content["settings"]
        assert settings["command"] == (
            f"stepcredit reproduce voting --seeds 3 --size train_prompts=7 --out {out}"
        )
        assert settings["scale"]["sizes"]["train_prompts"] == 7
        assert {"versions", "git_commit"} <= settings.keys()
        manifest = json.loads((folder / "voting" / "manifest.json").read_text())
        assert manifest["command"] == "reproduce"
        assert manifest["counts"] == {"seeds": 3}
        assert len(manifest["inputs"]) == 3
    assert "Made up" in (out / "report.html").read_text()
    assert not (published / "report.html").exists()


def test_run_again_it_measures_nothing(
    made_up: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "voting", "--quick", "--seeds", "2", "--out", str(tmp_path), "--json"]
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["findings"][0]["checks"][0]["verdict"] == "holds"
    seeds = list(made_up)
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert made_up == seeds


def test_a_dry_run_prints_a_plan_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "main", "--scale", "paper", "--dry-run", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(" train " in line for line in lines) > 5
    assert any(line.startswith("# ") and "commands, one after another" in line for line in lines)
    assert not (tmp_path / "out").exists()
    assert main([*words, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {"line", "flops", "hours", "formula"} <= content[0].keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reproduce", "fame"], "there is no experiment 'fame'"),
        (["reproduce", "main", "--scale", "moon"], "there is no scale 'moon'"),
        (["reproduce", "main", "--size", "train_prompts"], "is not a size"),
        (["reproduce", "main", "--size", "planets=3"], "is not a size"),
        (["reproduce", "main", "--size", "dev_prompts=3", "--size", "dev_prompts=4"], "given twice"),
        (["reproduce", "word-problems", "--minutes", "-1", "--dry-run"], "--minutes: must be more than 0"),
        (["reproduce", "main", "--seeds", "0"], "--seeds: must be at least 1"),
        (["reproduce", "main", "--jobs", "0"], "--jobs: must be at least 1"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_all_and_nothing_are_every_experiment() -> None:
    assert reproduce._names(reproduce.Options(names=("all",))) == list(reproduce.NAMES)
    assert reproduce._names(reproduce.Options(names=())) == list(reproduce.NAMES)
    assert reproduce._names(reproduce.Options(names=("cost", "main", "cost"))) == ["cost", "main"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["word-problems"], "word-problems: --model is missing"),
        (["word-problems", "main", "--model", "m"], "run it in a separate command"),
        (["word-problems", "--model", "m", "--quick"], "--quick: word-problems does not have it"),
        (["word-problems", "--model", "m", "--scale", "lab"], "there is no scale 'lab'. Use full, tiny"),
        (["word-problems", "--model", "m", "--data", "."], "--data: word-problems does not have it"),
        (["gsm8k", "--model", "m"], "gsm8k: --data is missing"),
        (["gsm8k", "--model", "m", "--data", "nowhere"], "gsm8k_train.jsonl: no such file"),
        (["main", "--model", "m"], "--model, --data and --minutes are for word-problems, gsm8k"),
        (["main", "--seeds", "1001", "--dry-run"], "--seeds: 1001 is more than 1000"),
    ],
)
def test_mistakes_in_what_to_reproduce_are_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *words]) == 2
    assert message.lower() in capsys.readouterr().err.lower()
