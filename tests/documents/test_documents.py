"""Every command and every line of Python in the README and the guides runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from stepcredit.cli import main
from stepcredit.cli.commands import COMMANDS
from stepcredit.cli.parser import OneLineParser, add_settings
from stepcredit.data import prompt_to_json, write_rows
from stepcredit.lab.policies import export_policies, policy_path
from stepcredit.lab.task import make_prompts
from stepcredit.runs import manifest_path

ROOT = Path(__file__).parents[2]
GUIDES = ("README.md", "docs/own-data.md")
REFERENCE = (
    "docs/reproduction.md",
    "docs/training.md",
    "docs/baselines.md",
    "docs/scoring.md",
    "docs/guided-search.md",
    "docs/serving.md",
    "docs/evaluation.md",
    "docs/grading.md",
    "docs/coming-from-trl.md",
    "docs/code.md",
)


def blocks(document: str, language: str) -> Iterator[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    yield from re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(document: str) -> list[list[str]]:
    joined = [block.replace("\\\n", " ") for block in blocks(document, "sh")]
    lines = [line.strip() for block in joined for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line and Path(line[0]).name == "stepcredit"]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has at hand: a model, prompts, and graded responses to other prompts."""
    monkeypatch.chdir(tmp_path)
    for name, split, count in (("prompts", "train", 24), ("dev-prompts", "development", 6)):
        write_rows(f"{name}.jsonl", map(prompt_to_json, make_prompts(split, seed=0, count=count)))
    write_rows("test-prompts.jsonl", map(prompt_to_json, make_prompts("test", seed=0, count=6)))
    model = ["--model", str(policy_path("mid")), "--max-new-tokens", "64", "--num-samples", "16"]
    for name in ("dev", "test"):
        assert main(["sample", f"{name}-prompts.jsonl", *model, "--out", f"{name}.sampled.jsonl"]) == 0
        assert main(["grade", f"{name}.sampled.jsonl", "--grader", "math", "--out", f"{name}.jsonl"]) == 0
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("document", GUIDES)
def test_the_commands_of_a_guide_run_one_after_another(document: str, workplace: Path) -> None:
    listed = commands(document)
    assert len(listed) >= 5
    made = {words[words.index("--out") + 1] for words in listed if "--out" in words}
    for path in made & {"dev.jsonl", "test.jsonl"}:
        Path(path).unlink()  # the guide says how to make it
        manifest_path(path).unlink()
    for words in listed:
        arguments = [str(policy_path("mid")) if word == "MODEL" else word for word in words[1:]]
        assert main(arguments) == 0, shlex.join(arguments)
    assert (workplace / "prm" / "prm.json").is_file()
    assert (workplace / "scores.jsonl").is_file()


@pytest.mark.parametrize("document", REFERENCE)
def test_the_commands_of_a_reference_page_have_the_options_that_they_use(document: str) -> None:
    listed = commands(document)
    assert listed
    table = {tuple(command.name.split()): command for command in COMMANDS}
    for words in listed:
        command = table.get((words[1], words[2])) or table[words[1],]
        parser = OneLineParser(allow_abbrev=False)
        parser.add_argument("--config")
        parser.add_argument("--json", action="store_true")
        add_settings(parser, import_module(command.module).Options)
        parser.parse_args(words[1 + len(command.name.split()) :])


@pytest.mark.slow
@pytest.mark.parametrize("document", GUIDES)
def test_the_python_of_a_guide_runs(
    document: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_policies(workplace / "policies")
    export_policies(workplace / "runs" / "demo" / "policies")
    for out in ("prm", "runs/demo/prm"):
        words = [
            "train",
            "test.jsonl",
            "--model",
            "policies/mid",
            "--epochs",
            "0.5",
            "--steps",
            "newline",
        ]
        assert main([*words, "--out", out]) == 0
    capsys.readouterr()
    for block in blocks(document, "python"):
        exec(compile(block, document, "exec"), {})
    assert "7*8=6" in capsys.readouterr().out or document != "README.md"


def test_every_command_that_a_guide_names_exists_and_every_command_is_named() -> None:
    names = {command.name for command in COMMANDS}
    for document in GUIDES:
        text = (ROOT / document).read_text(encoding="utf-8")
        for first, second in re.findall(r"(?:^|`|bin/)stepcredit ([a-z-]+)(?: ([a-z-]+))?", text, re.M):
            groups = {name.split()[0] for name in names if " " in name}
            named = f"{first} {second}" if first in groups and second else first
            assert named in names | groups, f"{document}: stepcredit {named}"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"stepcredit {command.name.split()[0]}" in readme, command.name


@pytest.mark.parametrize(
    "document",
    [
        *GUIDES,
        *REFERENCE,
        "docs/lab.md",
        "docs/design.md",
        "docs/formats.md",
        "docs/reasoning-and-agents.md",
        "docs/findings.md",
        "docs/python.md",
        "CONTRIBUTING.md",
    ],
)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{document}: {target}"
