import json
from pathlib import Path

import pytest

from stepcredit.cli import main
from stepcredit.data import write_rows


def write_inputs(folder: Path, *, correct: object = True) -> tuple[Path, Path]:
    rollouts, scores = [], []
    for problem in range(6):
        for index in range(4):
            right = index < problem % 4 + 1
            name = f"p{problem}-{index}"
            rollouts.append(
                {
                    "id": name,
                    "prompt_id": f"p{problem}",
                    "index": index,
                    "prompt": "1+1=",
                    "response": f"#{index}",
                    "correct": right if correct is True else correct,
                    "prediction": "2" if right else str(3 + index),
                }
            )
            reward = 1.0 if right else -1.0
            scores.append(
                {
                    "id": name,
                    "prompt_id": f"p{problem}",
                    "reward": reward,
                    "steps": [
                        {
                            "index": 0,
                            "text": f"#{index}",
                            "start": 0,
                            "end": 2,
                            "reward": reward,
                            "value": reward,
                        }
                    ],
                    "aggregates": {"min": reward},
                    "num_tokens": 2,
                    "scorer": "fake",
                }
            )
    graded, scored = folder / "graded.jsonl", folder / "scores.jsonl"
    write_rows(graded, rollouts)
    write_rows(scored, scores)
    return graded, scored


def test_development_problems_that_are_reported_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graded, scored = write_inputs(tmp_path)
    words = ["eval", "best-of-n", str(graded), "--scores", f"prm={scored}", "--n", "1,2", "--draws", "200"]
    assert main([*words, "--dev", str(graded), "--dev-scores", f"prm={scored}"]) == 0
    said = "warning: 6 development problems, first 'p0', are reported too"
    assert said in capsys.readouterr().err


def test_json_is_pure_and_has_every_method_and_aggregate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graded, scored = write_inputs(tmp_path)
    assert (
        main(["eval", "best-of-n", str(graded), "--scores", f"prm={scored}", "--n", "1,2,4", "--json"]) == 0
    )
    content = json.loads(capsys.readouterr().out)
    rows = {(row["method"], row["scorer"], row["aggregate"], row["n"]): row for row in content["results"]}
    assert set(rows[("pass", None, None, 1)]) >= {
        "method",
        "scorer",
        "aggregate",
        "n",
        "accuracy",
        "low",
        "high",
    }
    kinds = ["best-of-n", *(f"weighted-{kind}" for kind in ("sigmoid", "sum", "mean", "max", "log-odds"))]
    for n in (1, 2, 4):
        assert ("majority", None, None, n) in rows
        for kind in kinds:
            for aggregate in ("reward", "min"):
                row = rows[(kind, "prm", aggregate, n)]
                assert 0.0 <= row["low"] <= row["accuracy"] + 1e-9
                assert row["accuracy"] <= row["high"] + 1e-9 <= 1.0 + 2e-9
    assert rows[("best-of-n", "prm", "min", 4)]["accuracy"] == 1.0
    # Right of four: 1, 2, 3, 4, 1, 2 of the six problems.
    assert rows[("pass", None, None, 1)]["accuracy"] == pytest.approx((1 + 2 + 3 + 4 + 1 + 2) / 24)


def test_sizes_beyond_the_responses_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graded, scored = write_inputs(tmp_path)
    assert main(["eval", "best-of-n", str(graded), "--scores", str(scored), "--n", "4,64"]) == 0
    output = capsys.readouterr().out
    assert "n = 64 is left out: the smallest number of responses to a problem is 4" in output
    assert "scores" in output


def test_development_problems_are_named_and_not_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graded, scored = write_inputs(tmp_path)
    command = [
        "eval",
        "best-of-n",
        str(graded),
        "--scores",
        f"prm={scored}",
        "--n",
        "1,2",
        "--dev-fraction",
        "0.5",
    ]
    assert main([*command, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["num_problems"] < 6
    assert "hash of their id" in content["choices"]["prm"]["chosen_on"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--n", "64"], "--n: the smallest number of responses"),
        (["--weighted", "cubic"], "--weighted: 'cubic' is not a vote"),
        (["--dev-fraction", "2"], "--dev-fraction: must be between 0 and 1, got 2"),
        (["--scores", "prm=missing.jsonl"], "the name 'prm' appears twice"),
        (["--aggregate", "median"], "--aggregate: scorer 'prm' has no 'median'"),
        (["--dev-scores", "x"], "--dev-scores: needs --dev"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    graded, scored = write_inputs(tmp_path)
    assert main(["eval", "best-of-n", str(graded), "--scores", f"prm={scored}", *extra]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_file_that_is_not_graded_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graded, scored = write_inputs(tmp_path, correct=None)
    assert main(["eval", "best-of-n", str(graded), "--scores", f"prm={scored}"]) == 2
    assert "no response is graded. Grade them first: stepcredit grade" in capsys.readouterr().err


def test_a_nan_is_named_by_its_line_or_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graded, scored = write_inputs(tmp_path)
    lines = scored.read_text().splitlines()
    lines[2] = (
        lines[2]
        .replace('"reward": 1.0, "steps"', '"reward": NaN, "steps"')
        .replace('"reward": -1.0, "steps"', '"reward": NaN, "steps"')
    )
    scored.write_text("\n".join(lines) + "\n")
    command = ["eval", "best-of-n", str(graded), "--scores", f"prm={scored}", "--n", "1"]
    assert main(command) == 2
    assert f"{scored}:3: " in capsys.readouterr().err
    assert main([*command, "--skip-invalid"]) == 0
    output = capsys.readouterr().out
    assert "left out, rollouts without a score: 1" in output
    assert "left out, invalid rows of prm: 1" in output


def test_out_holds_results_tables_report_and_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graded, scored = write_inputs(tmp_path)
    out, page = tmp_path / "out", tmp_path / "board.html"
    command = ["eval", "best-of-n", str(graded), "--scores", f"prm={scored}", "--n", "1,4", "--out", str(out)]
    assert main(command) == 0
    assert main(command) == 0  # the same work again
    names = {path.name for path in out.iterdir()}
    assert names == {
        "report.html",
        "results.csv",
        "results.json",
        "results.json.manifest.json",
        "tables.md",
        "tables.tex",
    }
    assert json.loads((out / "results.json.manifest.json").read_text())["settings"]["n"] == [1, 4]
    assert main([*command, "--seed", "1"]) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert main([*command, "--seed", "1", "--overwrite"]) == 0
    assert main(["eval", "leaderboard", str(tmp_path), "--out", str(page)]) == 0
    assert "prm" in page.read_text()
    assert main(["eval", "leaderboard", str(tmp_path), "--out", str(page)]) == 2
    assert "already exists" in capsys.readouterr().err


def test_problems_may_differ_in_responses_up_to_the_smallest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graded, scored = write_inputs(tmp_path)
    for path in (graded, scored):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    command = ["eval", "best-of-n", str(graded), "--scores", f"prm={scored}", "--n", "1,3,4", "--json"]
    assert main(command) == 0
    content = json.loads(capsys.readouterr().out)
    assert {row["n"] for row in content["results"]} == {1, 3}
    assert content["num_responses"] == [3, 4]
    assert "problems have 3 to 4 responses; 'p5' has the fewest, which limits n" in content["notes"]


def test_first_n_in_the_file_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graded, scored = write_inputs(tmp_path)
    command = ["eval", "best-of-n", str(graded), "--scores", f"prm={scored}", "--n", "1", "--first", "--json"]
    assert main(command) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["subsets"] == "first n in file"
    assert content["results"][0]["accuracy"] == 1.0  # each problem's first response is right


def test_scores_without_steps_make_a_report(tmp_path: Path) -> None:
    graded, scored = write_inputs(tmp_path)
    rows = [json.loads(line) for line in scored.read_text().splitlines()]
    # Wrong responses are preferred, so that the report shows failures.
    write_rows(scored, [row | {"steps": [], "reward": -row["reward"], "aggregates": {}} for row in rows])
    out = tmp_path / "evaluation"
    assert main(["eval", "best-of-n", str(graded), "--scores", f"prm={scored}", "--out", str(out)]) == 0
    assert "<svg" in (out / "report.html").read_text()


@pytest.mark.filterwarnings("error")
def test_rewards_may_be_as_large_as_no_statistic_overflows_and_no_larger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graded, scored = write_inputs(tmp_path)
    rows = [json.loads(line) for line in scored.read_text().splitlines()]
    for size in (1e100, 1.1e100):
        for number, row in enumerate(rows):
            reward = size * row["reward"] * (1 - number / 100)
            row.update(reward=reward, aggregates={"min": reward, "product": reward})
            row["steps"][0].update(reward=reward, value=reward)
        write_rows(scored, rows)
        words = ["eval", "best-of-n", str(graded), "--scores", f"prm={scored}", "--n", "1,4"]
        code = main([*words, "--out", str(tmp_path / f"{size:g}")])
        said = capsys.readouterr()
        if size == 1e100:
            assert (code, said.err) == (0, "")
            assert "null" not in (tmp_path / "1e+100" / "results.json").read_text().partition('"rows"')[2]
        else:
            assert code == 2
            assert (
                "scores.jsonl:1: field 'reward' must be a finite number between -1e100 and 1e100" in said.err
            )
    assert not (tmp_path / "1.1e+100").exists()
