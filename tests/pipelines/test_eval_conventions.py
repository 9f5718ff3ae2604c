"""``stepcredit eval conventions`` from files to tables, with a tiny model."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from stepcredit.checkpoints import PRMCard, save_prm
from stepcredit.cli import main
from stepcredit.data import read_scores

Pair = tuple[Path, Path]


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    rows = [
        {
            "id": f"p{problem}-{index}",
            "prompt_id": f"p{problem}",
            "prompt": f"{problem} pens?",
            "response": f"Step 1: a{index}\n\nStep 2: b {'x' * problem}\n\nStep 3: #{index}",
            "correct": (problem + index) % 3 == 0,
            "prediction": str(index),
        }
        for problem in range(4)
        for index in range(3)
    ]
    path = tmp_path / "graded.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    rows = [
        {
            "id": f"x{number}",
            "generator": "fake",
            "problem": f"What is {number}?",
            "steps": ["One.", f"Two {number}.", "Three."],
            "final_answer_correct": number % 2 == 0,
            "label": -1 if number % 2 == 0 else number % 3,
        }
        for number in range(6)
    ]
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(data: Path, pair: Pair, out: Path, *more: str) -> list[str]:
    words = ["eval", "conventions", str(data), "--prm", str(pair[0]), "--reference", str(pair[1])]
    return [*words, "--beta", "0.3", "--draws", "200", "--n", "2", "--out", str(out), *more]


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_best_of_n_accuracy_under_every_convention(
    graded: Path, saved_pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    report = run(command(graded, saved_pair, out, "--n", "3,64"), capsys)
    assert len(report["results"]) == 3 * 2 * 2 * 2 * 2
    assert report["results"][0]["convention"] == {
        "steps": "clean",
        "reference": True,
        "step_score": "difference",
        "aggregate": "min",
        "subsets": "all",
    }
    assert report["results"][0]["change"] == 0.0
    assert "n = 64 is left out: the smallest number of responses to a problem is 3" in report["notes"]
    assert "best-of-n: 3.0 steps per response" in report["notes"]
    # The published evaluator's cumulative minimum is an aggregate of its score file.
    rows = [json.loads(line) for line in graded.read_text().splitlines()]
    scores = {score.id: score for score in read_scores(out / "best-of-n-without-reference.jsonl")}
    right = []
    for problem in range(4):
        of_problem = [row for row in rows if row["prompt_id"] == f"p{problem}"]
        best = max(of_problem, key=lambda row: scores[row["id"]].aggregates["cumulative_min"])
        right.append(best["correct"])
    (row,) = (
        row
        for row in report["results"]
        if row["convention"]
        == {
            "steps": "best-of-n",
            "reference": False,
            "step_score": "cumulative",
            "aggregate": "min",
            "subsets": "first",
        }
    )
    assert row["value"] == pytest.approx(sum(right) / 4)
    assert json.loads((out / "conventions.json").read_text()) == report
    assert "One convention changed at a time" in (out / "tables.md").read_text()
    assert (out / "conventions.json.manifest.json").is_file()


def test_f1_on_step_labels_leaves_out_the_convention_that_cuts_by_itself(
    labelled: Path, saved_pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    report = run(command(labelled, saved_pair, out, "--format", "processbench"), capsys)
    assert {row["metric"] for row in report["results"]} == {"f1"}
    assert len(report["results"]) == 2 * 2 * 2
    assert {row["convention"]["steps"] for row in report["results"]} == {"clean", "processbench"}
    assert not (out / "best-of-n.jsonl").exists()
    assert any("too optimistic" in note for note in report["notes"])
    assert all(0.0 <= row["value"] <= 1.0 for row in report["results"])


def test_what_is_scored_is_not_scored_again(
    graded: Path, saved_pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(graded, saved_pair, tmp_path / "out")
    assert main(words) == 0
    output = capsys.readouterr()
    assert "One convention changed at a time" in output.out
    assert "As the published evaluator reports" in output.out
    assert output.err.count("steps: by") == 1  # chosen once, for all conventions
    before = os.stat(tmp_path / "out" / "clean.jsonl").st_mtime_ns
    assert main(words) == 0
    assert os.stat(tmp_path / "out" / "clean.jsonl").st_mtime_ns == before
    assert main([*words, "--seed", "1"]) == 2
    assert "pass --overwrite" in capsys.readouterr().err


def test_a_model_trained_without_a_reference_is_compared_without(
    graded: Path,
    saved_pair: Pair,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make_model: Any,
    make_tokenizer: Any,
) -> None:
    save_prm(make_model(0), make_tokenizer(), PRMCard(beta=0.3, step_rule="newline"), saved_pair[0])
    words = ["eval", "conventions", str(graded), "--prm", str(saved_pair[0]), "--n", "2"]
    report = run([*words, "--draws", "200", "--out", str(tmp_path / "out")], capsys)
    assert {row["convention"]["reference"] for row in report["results"]} == {False}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--draws", "5"], "--draws: 5 draws give no interval"),
        (["--n", "9"], "--n: the smallest number of responses"),
        (["--beta", "0"], "--beta: must be above 0"),
        (["--steps", "words"], "--steps: no step rule 'words'"),
    ],
)
def test_mistakes_are_told_in_one_line(
    graded: Path,
    saved_pair: Pair,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    assert main(command(graded, saved_pair, tmp_path / "out", *more)) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_data_without_grades_or_labels_and_a_file_as_folder(
    graded: Path, saved_pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(graded, saved_pair, graded)) == 2
    assert "is a file" in capsys.readouterr().err
    graded.write_text(json.dumps({"id": "a", "prompt_id": "p", "prompt": "?", "response": "b"}))
    assert main(command(graded, saved_pair, tmp_path / "out")) == 2
    assert "neither several graded responses" in capsys.readouterr().err
