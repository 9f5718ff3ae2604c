"""What docs/reasoning-and-agents.md shows runs: its row, its commands, its lines of Python."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.chat_families import FAMILIES
from tests.documents.test_documents import blocks, commands

from stepcredit.cli import main

PAGE = "docs/reasoning-and-agents.md"


@pytest.fixture(params=["qwen", "llama", "gemma"])
def workplace(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_tokenizer: Callable[..., Any],
    make_model: Callable[..., Any],
) -> Path:
    """What a reader has at hand: a model and rows like the one shown."""
    monkeypatch.chdir(tmp_path)
    make_model(0).save_pretrained("model")
    FAMILIES[request.param].tokenizer(make_tokenizer).save_pretrained("model")
    (row,) = map(json.loads, blocks(PAGE, "json"))
    wrong = {**row, "id": "a/1", "correct": False, "response": row["response"][:1]}
    write("trajectories.jsonl", [row, wrong])
    text = "<think>\n3 + 4\n\nis \\boxed{7}\n</think>\n\n"
    shared = {"prompt_id": "b", "prompt": "What is 3 + 4?", "answer": "7"}
    write("reasoning.jsonl", [{"id": f"b/{n}", "response": text + "7." * n, **shared} for n in range(2)])
    write("trl.jsonl", [{"prompt": row["prompt"], "completion": row["response"], "label": True}])
    return tmp_path


def write(path: str, rows: list[dict[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_the_page_runs_from_top_to_bottom(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(PAGE):
        arguments = ["model" if word == "MODEL" else word for word in words[1:]]
        assert main(arguments) == 0, shlex.join(arguments)
    for block in blocks(PAGE, "python"):
        exec(compile(block, PAGE, "exec"), {})
    assert [len(score["steps"]) for score in read("turns.jsonl")] == [2, 1]
    assert [len(score["steps"]) for score in read("lines.jsonl")] == [3, 1]
    assert read("turns.jsonl")[0]["scored_text"].endswith("The tool says 7.\nThe answer is 7")
    assert "1 of these states one only inside its thinking" in capsys.readouterr().out
    assert [line["response"] for line in read("rollouts.jsonl")] == [
        line["completion"] for line in read("trl.jsonl")
    ]
    assert [line["completion"] for line in read("back.jsonl")] == [
        line["response"] for line in read("trajectories.jsonl")
    ]
