"""Runs of one command into one output at the same time: one writes, the others are refused."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.racing import check_manifests, contents, race
from tests.processes import run_alone
from tests.tutor_rollouts import tutor_rollouts

from stepcredit.data import rollout_to_json, write_rows
from stepcredit.lab.oracles import label_steps
from stepcredit.lab.policies import policy_path
from stepcredit.lab.tutor import WEAK
from stepcredit.pipelines import baseline

MID = str(policy_path("mid"))
TRAINING = ["--model", MID, "--batch-size", "16", "--epochs", "1", "--steps", "newline"]

COMMANDS = {
    "sample": "sample prompts.jsonl --generator fake --num-samples 8 --out OUT/x.jsonl",
    "sample to parquet": "sample prompts.jsonl --generator fake --num-samples 2 --out OUT/x.parquet",
    "grade": "grade many.jsonl --grader exact --regrade --answer-pattern #(\\d) --out OUT/x.jsonl",
    "score": f"score dev.jsonl --prm {MID} --reference-free --beta 1 --steps newline --out OUT/x.jsonl "
    "--html OUT/x.html --html-rows 2",
    "search": f"search prompts.jsonl --limit 6 --model {MID} --prm prm --steps newline --width 4 --expand 2 "
    "--max-new-tokens 48 --out OUT/x.jsonl --html OUT/x.html",
    "convert": "convert many.jsonl --to trl-unpaired --out OUT/x.jsonl",
    "select": "select many.jsonl --prompts 0.5 --out OUT/x.jsonl",
    "baseline": "baseline many.jsonl --by random --out OUT/x.jsonl",
    "train": f"train train.jsonl {' '.join(TRAINING)} --out OUT/prm",
    "label math-shepherd": "label math-shepherd dev.jsonl --generator fake --grader exact "
    "--answer-pattern #(\\d) --steps newline --num-completions 4 --out OUT/x.jsonl",
    "label autopsv": f"label autopsv train.jsonl --dev dev.jsonl {' '.join(TRAINING)} --out OUT/x.jsonl",
    "eval best-of-n": "eval best-of-n many.jsonl --scores by=random.jsonl --n 1,4 --draws 500 --out OUT/x",
    "eval steps": "eval steps labelled.jsonl --prm mine=prm --draws 500 --out OUT/x",
    "eval processbench": "eval processbench labelled.jsonl --format rollouts --prm mine=prm --draws 500 "
    "--out OUT/x",
    "eval prmbench": "eval prmbench prmbench.jsonl --prm mine=prm --draws 200 --out OUT/x",
    "eval conventions": "eval conventions labelled.jsonl --prm prm --n 1,2 --draws 100 --out OUT/x",
    "eval leaderboard": "eval leaderboard evaluations --out OUT/x.html --overwrite",
    "compare": "compare recipe.yaml --draws 500 --out OUT/x",
}


def prm_bench_row(number: int) -> dict[str, Any]:
    return {
        "idx": f"circular-{number}",
        "original_question": "?",
        "modified_question": f"{number}+1+1=",
        "original_process": [f"{number}+1={number + 1}", f"{number + 1}+1={number + 2}"],
        "modified_process": [f"{number}+1={number + 1}", f"{number + 1}+1=0"],
        "modified_steps": [2],
        "error_steps": [2],
        "classification": "circular",
        "reason": "",
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    for name, split, problems, samples in (
        ("train", "train", 6, 4),
        ("dev", "development", 8, 4),
        ("test", "test", 8, 4),
        ("many", "test", 100, 8),
    ):
        rows = map(rollout_to_json, tutor_rollouts(WEAK, problems, samples, split=split, seed=5))
        write_rows(root / f"{name}.jsonl", rows)
    rollouts = list(tutor_rollouts(WEAK, 10, 2, split="test", seed=7))
    labelled = [replace(rollout, step_labels=label_steps(rollout)) for rollout in rollouts]
    write_rows(root / "labelled.jsonl", map(rollout_to_json, labelled))
    write_rows(root / "prmbench.jsonl", map(prm_bench_row, range(8)))
    baseline.run(baseline.Options(rollouts=root / "many.jsonl", by="random", out=root / "random.jsonl"))
    prompts = ({"id": f"p{number}", "prompt": f"{number}+1="} for number in range(200))
    write_rows(root / "prompts.jsonl", prompts)
    recipe = {
        "model": MID,
        **{name: f"{name}.jsonl" for name in ("train", "dev", "test")},
        "n": [1, 4],
        "choose_at": 4,
        "settings": {"batch_size": 16, "epochs": 1, "step_rule": "newline", "beta": 0.5},
        "methods": [
            {"name": "ce", "train": {"objective": "ce"}, "search": {"learning_rate": [1e-4]}},
            {"name": "chance", "baseline": "random"},
        ],
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with contextlib.chdir(root):
        for name, folder in (("train", "."), ("eval best-of-n", "evaluations")):
            run_alone(COMMANDS[name].replace("OUT", folder).split(), root / "log")
    return root


@pytest.mark.parametrize("name", COMMANDS)
def test_eleven_runs_leave_what_one_leaves(
    name: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    out, words = tmp_path / "out", COMMANDS[name].replace("OUT", str(tmp_path / "out")).split()
    seconds = run_alone(words, tmp_path / "alone.log")
    alone, num_manifests = contents(out), check_manifests(out)
    shutil.rmtree(out)
    result = race(words, tmp_path, seconds)
    assert 0 in result.codes
    assert result.refused
    together = contents(out)
    assert together.keys() == alone.keys()
    assert {file for file in alone if together[file] != alone[file] and "train_log" not in file} == set()
    assert check_manifests(out) == num_manifests
