"""Training on several turns, and what prm.json keeps of how they became tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.chat_families import ASKED, FAMILIES, TOOL, TURNS

from stepcredit.checkpoints import PRMCard
from stepcredit.cli import main

BETA = 0.5


@pytest.fixture
def model(
    tmp_path: Path, family: str, make_tokenizer: Callable[..., Any], make_model: Callable[..., Any]
) -> Path:
    make_model(0).save_pretrained(tmp_path / "model")
    FAMILIES[family].tokenizer(make_tokenizer).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def rows() -> list[dict[str, Any]]:
    wrong = [*TURNS[:-1], {"role": "assistant", "content": "the answer is 8"}]
    shared = {"prompt_id": "p", "prompt": ASKED, "tools": [TOOL]}
    return [
        {"id": "a", "response": TURNS, "correct": True, **shared},
        {"id": "b", "response": wrong, "correct": False, **shared},
    ]


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma"])
@pytest.mark.parametrize(
    "options", [[], ["--family", "value-head", "--layout", "padded"]], ids=["implicit", "head"]
)
def test_turns_are_trained_on_and_scored_the_same_way(
    family: str, options: list[str], model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "graded.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    settings = ["--batch-size", "2", "--epochs", "20", "--learning-rate", "1e-2", "--steps", "turn", *options]
    out = tmp_path / "prm"
    chat = ["--template-arg", "enable_thinking=false", "--template-date", "2026-11-29"]
    command = ["train", str(data), "--model", str(model), "--out", str(out), "--no-keep-best"]
    assert main([*command, *settings, *chat]) == 0
    card = PRMCard.read(out)
    assert card.template_arguments == {"enable_thinking": False}
    assert card.template_date == ("2026-11-29" if family == "llama" else None)
    assert main(["score", str(data), "--prm", str(out), "--out", str(tmp_path / "scores.jsonl")]) == 0
    scores = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [len(score["steps"]) for score in scores] == [3, 3]
    assert scores[0]["reward"] > scores[1]["reward"]
    assert main(["score", str(data), "--prm", str(out), "--out", "x.jsonl", "--template-arg", "a=1"]) == 2
