"""What docs/guided-search.md and docs/serving.md show runs: their commands, and their lines of Python."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.documents.test_documents import blocks, commands
from tests.processes import Server

from stepcredit.cli import main
from stepcredit.client import Client
from stepcredit.data import prompt_to_json, read_prompts, read_rollouts, rollout_to_json, write_rows
from stepcredit.generators.options import GeneratorOptions, make_generator
from stepcredit.lab.policies import policy_path
from stepcredit.lab.task import make_prompts
from stepcredit.lab.tutor import WEAK
from stepcredit.scorers import load_scorer
from stepcredit.types import Sampling

pytestmark = pytest.mark.slow
MODEL = str(policy_path("mid"))


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that was trained as the guides say."""
    from tests.tutor_rollouts import tutor_rollouts

    folder = tmp_path_factory.mktemp("prm")
    rows = map(rollout_to_json, tutor_rollouts(WEAK, 8, 4, split="train", seed=0))
    write_rows(folder / "graded.jsonl", rows)
    words = ["train", str(folder / "graded.jsonl"), "--model", MODEL, "--epochs", "0.5", "--steps", "newline"]
    assert main([*words, "--out", str(folder / "prm")]) == 0
    return folder / "prm"


@pytest.fixture
def workplace(prm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has at hand: two reward models and prompts."""
    monkeypatch.chdir(tmp_path)
    for name in ("prm", "other-prm"):
        shutil.copytree(prm, tmp_path / name)
    write_rows("prompts.jsonl", map(prompt_to_json, make_prompts("train", seed=0, count=3)))
    return tmp_path


def test_the_commands_of_the_search_page_run_one_after_another(workplace: Path) -> None:
    assert [words[1] for words in commands("docs/guided-search.md")] == ["search", "grade"]
    for words in commands("docs/guided-search.md"):
        arguments = [MODEL if word == "MODEL" else word for word in words[1:]]
        assert main(arguments) == 0, shlex.join(arguments)
    assert {rollout.correct for rollout in read_rollouts("graded.jsonl")} <= {True, False}
    for name in ("found.jsonl.trees.jsonl", "trees.html"):
        assert (workplace / name).stat().st_size > 1000


def test_the_python_of_the_search_page_prints_a_response_for_each_problem(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {
        "generator": make_generator(GeneratorOptions(model=MODEL), continues=True),
        "scorer": load_scorer(workplace / "prm"),
        "sampling": Sampling(max_new_tokens=48),
        "prompts": list(read_prompts("prompts.jsonl")),
    }
    (block,) = blocks("docs/guided-search.md", "python")
    exec(compile(block, "docs/guided-search.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("#") for line in lines) == 3


@contextmanager
def running(words: list[str]) -> Iterator[str]:
    """The address of a server that a command of the page started, on a port of its own."""
    with Server([*words[2:], "--port", "0"], Path("server.log")) as server:
        yield server.address


def test_the_servers_of_the_serving_page_answer_its_client(workplace: Path) -> None:
    first, both = commands("docs/serving.md")
    assert first[:2] == both[:2] == ["stepcredit", "serve"]
    (block,) = blocks("docs/serving.md", "python")
    names: dict[str, Any] = {}
    with running(first) as address:
        exec(compile(block.replace("http://127.0.0.1:8080", address), "docs/serving.md", "exec"), names)
    assert names["index"] in (0, 1)
    rewards = [score.reward for score in names["scores"]]
    assert rewards[names["index"]] == max(rewards)
    with running(both) as address, Client(address) as client:
        scored = client.score("7*8+5-3=", ["7*8=6\n6+5=1\n1-3=8\n#8"])
        assert [score.reward for score in scored] == pytest.approx(rewards[:1], abs=1e-5)
