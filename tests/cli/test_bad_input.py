"""A user's mistake is one line that says what to do, exit code 2, and nothing changed on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from stepcredit.cli import main
from stepcredit.lab.policies import export_policies, policy_path

MID = str(policy_path("mid"))
RIGHT, WRONG = "7*8=6\n6+5=1\n#1", "7*8=5\n5+5=0\n#0"


def row(identifier: str = "p/0", **changes: Any) -> dict[str, Any]:
    content = {"id": identifier, "prompt_id": "p", "prompt": "7*8+5=", "response": RIGHT, "answer": "1"}
    return {**content, "correct": True, "finish_reason": "stop", **changes}


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def refused(words: list[str], directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail; gives its one line."""
    before = files(directory)
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("stepcredit: error: ")]
    assert len(lines) == 1
    assert said.err.splitlines()[-1] == lines[0]
    assert "Traceback" not in said.err
    assert said.out == ""
    left = {name: content for name, content in files(directory).items() if ".partial" not in name}
    assert left == before
    return lines[0]


def command(name: str, source: Path, out: Path) -> list[str]:
    options = {
        "grade": ["--grader", "exact"],
        "train": ["--model", MID],
        "score": ["--prm", MID, "--reference", MID, "--beta", "1"],
    }
    return [name, str(source), *options[name], "--out", str(out)]


COMMANDS = ("grade", "train", "score")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_file_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "nowhere.jsonl"
    assert str(source) in refused(command(name, source, tmp_path / "out.jsonl"), tmp_path, capsys)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("second", "said"),
    [
        ('{"id": "p/1", "prompt_id"', "rollouts.jsonl:2"),
        (json.dumps(row("p/1", response=7)), "response"),
        (json.dumps(row("p/0")), "p/0"),
    ],
    ids=["malformed line", "wrong field", "duplicate id"],
)
def test_a_bad_row_is_named_with_its_line(
    name: str, second: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "rollouts.jsonl", row(correct=None), second)
    line = refused(command(name, source, tmp_path / "out.jsonl"), tmp_path, capsys)
    assert "rollouts.jsonl:2" in line
    assert said in line


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(correct=None), row("p/1", correct=None)], "grade"),
        ([row(), row("p/1", response="7*8=6\n6+5=1\n#1 ")], "right"),
        ([row(response=WRONG, correct=False)], "wrong"),
        ([], "rollouts.jsonl: there are no rollouts to train on"),
    ],
    ids=["nothing graded", "all right", "all wrong", "empty file"],
)
def test_training_needs_right_and_wrong_responses(
    rows: list[dict[str, Any]], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "rollouts.jsonl", *rows)
    assert said in refused(command("train", source, tmp_path / "prm"), tmp_path, capsys)


@pytest.mark.parametrize(
    ("name", "flag"), [("train", "--model"), ("score", "--prm"), ("score", "--reference")]
)
def test_an_unknown_model_directory_is_named(
    name: str, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "rollouts.jsonl", row(), row("p/1", response=WRONG, correct=False))
    words = command(name, source, tmp_path / "out.jsonl")
    words[words.index(flag) + 1] = str(tmp_path / "no-model")
    assert "no-model" in refused(words, tmp_path, capsys)


def test_a_reference_with_another_tokenizer_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_policies(tmp_path / "policies")
    other = tmp_path / "policies" / "weak"
    vocabulary = Tokenizer(models.WordLevel({"<end>": 0, "a": 1}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, eos_token="<end>")
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(str(other))
    source = write(tmp_path / "rollouts.jsonl", row())
    words = command("score", source, tmp_path / "out.jsonl")
    words[words.index("--reference") + 1] = str(other)
    assert "tokenizer" in refused(words, tmp_path, capsys)


def test_a_response_longer_than_the_context_is_refused_or_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = row("p/1", response="7*8=6\n" * 2000)
    source = write(tmp_path / "rollouts.jsonl", row(), long)
    words = command("score", source, tmp_path / "out.jsonl")
    assert "p/1" in refused(words, tmp_path, capsys)
    assert main([*words, "--skip-invalid"]) == 0
    assert "1" in capsys.readouterr().out
    scored = [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert scored == ["p/0"]


def test_an_empty_response_is_scored_by_its_end_of_turn(tmp_path: Path) -> None:
    source = write(tmp_path / "rollouts.jsonl", row(response="", correct=False))
    assert main(command("score", source, tmp_path / "out.jsonl")) == 0
    (scored,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert scored["num_tokens"] == 1
    assert "".join(step["text"] for step in scored["steps"]) == ""


def test_scores_of_other_rollouts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "rollouts.jsonl", row(prediction="1"))
    assert main(command("score", source, tmp_path / "scores.jsonl")) == 0
    other = write(tmp_path / "other.jsonl", row("q/0", prompt_id="q", prediction="1"))
    words = ["eval", "best-of-n", str(other), "--scores", f"prm={tmp_path}/scores.jsonl", "--n", "1"]
    assert "none of its ids" in refused(words, tmp_path, capsys)


@pytest.mark.parametrize("out", ["/proc/rows.jsonl", "/proc/rows.jsonl.gz", "/proc/self/rows.parquet"])
@pytest.mark.parametrize("name", ["grade", "convert"])
def test_an_output_that_cannot_be_written_is_named_as_the_user_named_it(
    name: str, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "rollouts.jsonl", row(correct=None))
    words = [name, str(source), "--out", out, *(["--grader", "exact"] if name == "grade" else [])]
    line = refused(words, tmp_path, capsys)
    assert line.startswith(f"stepcredit: error: {out}: cannot be written (")
    assert ".tmp" not in line


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "rollouts.jsonl", "--generator", "fake"],
        ["search", "rollouts.jsonl", "--model", MID, "--prm", MID],
        ["label", "math-shepherd", "rollouts.jsonl", "--generator", "fake", "--grader", "exact"],
        ["label", "autopsv", "rollouts.jsonl", "--model", MID, "--dev", "rollouts.jsonl"],
        ["grade", "rollouts.jsonl", "--grader", "exact"],
        ["score", "rollouts.jsonl", "--prm", MID],
    ],
    ids=lambda words: words[1] if words[0] == "label" else words[0],
)
def test_an_extension_that_is_not_known_is_refused_before_the_work(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rollouts.jsonl", row(), row("p/1", response=WRONG, correct=False))
    assert "out.txt: the extension is not known" in refused([*words, "--out", "out.txt"], tmp_path, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["rollouts.jsonl"]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_empty_path_is_not_the_current_folder(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write(tmp_path / "rollouts.jsonl", row())
    words = command(name, source, tmp_path / "out.jsonl")
    assert "--out: '' is not a path" in refused([*words[:-1], ""], tmp_path, capsys)


@pytest.mark.parametrize("target", ["nowhere", "out"], ids=["broken", "circle"])
@pytest.mark.parametrize("rest", ["", "/inner"])
@pytest.mark.parametrize("name", ["eval best-of-n", "eval leaderboard", "baseline", "train"])
def test_a_link_that_leads_nowhere_is_no_place_for_an_output(
    name: str, rest: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "rollouts.jsonl", row(), row("p/1", response=WRONG, correct=False))
    scores = tmp_path / "scores.jsonl"
    assert main(["baseline", str(source), "--by", "longest", "--out", str(scores)]) == 0
    evaluation = ["eval", "best-of-n", str(source), "--scores", str(scores), "--draws", "100"]
    assert main([*evaluation, "--out", str(tmp_path / "evaluation")]) == 0
    out = tmp_path / "out"
    out.symlink_to(target)
    words = {
        "eval best-of-n": evaluation,
        "eval leaderboard": ["eval", "leaderboard", str(tmp_path)],
        "baseline": ["baseline", str(source), "--by", "longest"],
        "train": ["train", str(source), "--model", MID, "--epochs", "1"],
    }[name]
    ending = f"{rest or '/inner'}.jsonl" if name == "baseline" else rest
    if name == "eval leaderboard" and not rest:
        assert main([*words, "--out", str(out)]) == 0  # The page takes the link's place.
    else:
        assert str(out) in refused([*words, "--out", f"{out}{ending}"], tmp_path, capsys)
        assert out.is_symlink()
