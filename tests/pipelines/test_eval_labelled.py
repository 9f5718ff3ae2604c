"""The three evaluations of step-labelled data, from files."""

import csv
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stepcredit.cli import main
from stepcredit.data import score_to_json, write_rows
from stepcredit.data.formats import read_rollouts_as
from stepcredit.evaluation.samples import in_share
from stepcredit.types import ResponseScore, Rollout, StepScore

SHARED = Path(__file__).parents[2] / "../shared"


def score(rollout: Rollout, wrong: Sequence[int], noise: float = 0.0) -> dict[str, Any]:
    """A score of each listed step: -1 at the ``wrong`` ones, else 1, less ``noise`` times its index."""
    labels = rollout.step_labels or ()
    texts = rollout.extras["steps"]
    starts, position = [], 0
    for text in texts:
        starts.append(rollout.response.index(text, position))
        position = starts[-1] + len(text)
    ends = [*starts[1:], len(rollout.response)]
    assert len(labels) <= len(texts)
    steps, total = [], 0.0
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        reward = (-1.0 if index in wrong else 1.0) - noise * index
        total += reward
        steps.append(StepScore(index, rollout.response[start:end], start, end, reward, total))
    return score_to_json(
        ResponseScore(
            id=rollout.id,
            prompt_id=rollout.prompt_id,
            reward=total,
            steps=tuple(steps),
            aggregates={},
            num_tokens=9,
            scorer="fake",
        )
    )


def process_bench(folder: Path, name: str, labels: Sequence[int]) -> Path:
    path = folder / f"{name}.jsonl"
    write_rows(
        path,
        [
            {
                "id": f"{name}-{number}",
                "generator": "fake",
                "problem": f"What is {number}?",
                "steps": ["one.", "two.", "three."],
                "final_answer_correct": label < 0,
                "label": label,
            }
            for number, label in enumerate(labels)
        ],
    )
    return path


def perfect_scores(data: Path, format_name: str, *, noise: float = 0.0) -> Path:
    scores = data.with_name(f"{data.stem}-scores.jsonl")
    rows = []
    for rollout in read_rollouts_as(data, format_name):
        labels = rollout.step_labels or ()
        rows.append(score(rollout, [i for i, label in enumerate(labels) if label.label < 0.5], noise))
    write_rows(scores, rows)
    return scores


def figures(output: str) -> dict[tuple[str, str, str, str | None], dict[str, Any]]:
    content = json.loads(output)
    return {
        (row["subset"], row["quantity"], row["metric"], row["threshold_from"]): row
        for row in content["results"]
    }


def test_processbench_names_where_each_threshold_is_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    easy, hard = process_bench(tmp_path, "gsm8k", [0, 1, -1, 2]), process_bench(tmp_path, "math", [1, -1, -1])
    # The hard file's scores sink with every step: the threshold of the easy one is too high there.
    command = ["eval", "processbench", str(easy), str(hard), "--draws", "200", "--json"]
    command += ["--scores", f"prm/gsm8k={perfect_scores(easy, 'processbench')}"]
    command += ["--scores", f"prm/math={perfect_scores(hard, 'processbench', noise=0.9)}"]
    assert main(command) == 0
    shown = figures(capsys.readouterr().out)
    for origin in ("tuned on gsm8k", "this file (oracle threshold)", "fixed: 0"):
        assert shown["gsm8k", "reward", "f1", origin]["value"] == 1.0
    assert shown["math", "reward", "correct_accuracy", "tuned on gsm8k"]["value"] == 0.0
    assert shown["math", "reward", "f1", "this file (oracle threshold)"]["value"] == 1.0
    assert shown["mean of subsets", "reward", "f1", "tuned on gsm8k"]["value"] == 0.5
    assert shown["math", "reward", "first_error_auc", None]["value"] == 1.0
    assert shown["math", "value", "first_error_auc", None]["value"] is not None


def test_processbench_on_a_development_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, dev = process_bench(tmp_path, "math", [0, 1, -1]), process_bench(tmp_path, "omni", [2, -1])
    command = ["eval", "processbench", str(data), "--dev", str(dev), "--draws", "200", "--json"]
    command += ["--scores", f"prm/math={perfect_scores(data, 'processbench')}"]
    command += ["--scores", f"prm/dev={perfect_scores(dev, 'processbench')}"]
    assert main(command) == 0
    shown = figures(capsys.readouterr().out)
    assert shown["math", "reward", "f1", f"tuned on {dev}"]["value"] == 1.0
    assert not any(subset == "dev" for subset, *_ in shown)


def test_development_rows_of_reported_problems_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, dev = process_bench(tmp_path, "math", [0, 1, -1]), tmp_path / "again.json"
    dev.write_bytes(data.read_bytes())
    command = ["eval", "processbench", str(data), "--dev", str(dev), "--draws", "200", "--json"]
    command += ["--scores", f"prm/math={perfect_scores(data, 'processbench')}"]
    command += ["--scores", f"prm/dev={perfect_scores(dev, 'processbench')}"]
    assert main(command) == 0
    assert "warning: 3 development problems, first " in capsys.readouterr().err


def prm_bench(folder: Path) -> Path:
    path = folder / "bench.jsonl"
    rows = []
    for category, errors in (("circular", [2]), ("confidence", [1, 3]), ("multi_solutions", [])):
        rows += [
            {
                "idx": f"{category}-{number}",
                "original_question": "?",
                "modified_question": f"Question {number}?",
                "original_process": ["a", "b", "c"],
                "modified_process": ["one", "two", "three"],
                "modified_steps": errors,
                "error_steps": errors,
                "classification": category,
                "reason": "",
            }
            for number in range(4)
        ]
    write_rows(path, rows)
    return path


def test_prmbench_reports_categories_aspects_and_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = prm_bench(tmp_path)
    command = ["eval", "prmbench", str(data), "--draws", "200", "--json"]
    command += ["--scores", f"prm={perfect_scores(data, 'prmbench')}"]
    assert main(command) == 0
    shown = figures(capsys.readouterr().out)
    published = "fixed: 0.5 (published)"
    for subset in ("circular", "confidence", "simplicity", "soundness", "sensitivity", "all"):
        assert shown[subset, "reward", "prm_score", published]["value"] == 1.0
    # Solutions that are right in every step have no wrong step to find.
    assert shown["multi_solutions", "reward", "negative_f1", published]["value"] is None
    assert shown["multi_solutions", "reward", "positive_f1", published]["value"] == 1.0


def test_prmbench_averages_categories_as_published_or_pools_their_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Circular: 4 x 1 wrong step, all found; redundency: 2 x 1 wrong step, all missed."""
    data, scores = tmp_path / "bench.jsonl", tmp_path / "scores.jsonl"
    write_rows(
        data,
        [
            {
                "idx": f"{category}-{number}",
                "modified_question": f"Question {category} {number}?",
                "original_process": ["a", "b"],
                "modified_process": ["one", "two"],
                "error_steps": [2],
                "classification": category,
            }
            for category, count in (("circular", 4), ("redundency", 2))
            for number in range(count)
        ],
    )
    rollouts = list(read_rollouts_as(data, "prmbench"))
    write_rows(scores, [score(rollout, [1] if "circular" in rollout.id else []) for rollout in rollouts])
    shown = {}
    for way in ("published", "pooled"):
        command = ["eval", "prmbench", str(data), "--scores", f"prm={scores}", "--draws", "200", "--json"]
        assert main([*command, "--aspects", way]) == 0
        captured = capsys.readouterr().out
        assert ("as in the published table" in captured) == (way == "published")
        shown[way] = figures(captured)
    key = ("reward", "prm_score", "fixed: 0.5 (published)")
    # Redundency: both steps called right, so right F1 = 2 * 2 / (2 * 2 + 2) = 2/3 and wrong F1 = 0.
    categories = [shown["published"][name, *key]["value"] for name in ("circular", "redundency")]
    assert categories == pytest.approx([1.0, 1 / 3])
    assert shown["published"]["simplicity", *key]["value"] == pytest.approx((1 + 1 / 3) / 2)
    # Pooled: 6 right steps kept, 4 of 6 wrong ones found: F1 12/14 and 8/10.
    pooled = (12 / 14 + 8 / 10) / 2
    assert shown["pooled"]["simplicity", *key]["value"] == pytest.approx(pooled)
    assert shown["published"]["all", *key]["value"] == pytest.approx(pooled)
    negative = shown["published"]["redundency", "reward", "negative_f1", key[2]]["value"]
    assert negative == 0.0


def test_prmbench_reads_all_scores_of_a_scorer_on_one_scale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Right steps have the logit 0.3, wrong ones -0.1; in one category no step is wrong."""
    data, scores = prm_bench(tmp_path), tmp_path / "scores.jsonl"
    rows = []
    for rollout in read_rollouts_as(data, "prmbench"):
        wrong = [i for i, label in enumerate(rollout.step_labels or ()) if label.label < 0.5]
        row = score(rollout, wrong)
        for step in row["steps"]:
            step["reward"] = step["value"] = -0.1 if step["index"] in wrong else 0.3
        rows.append(row)
    write_rows(scores, rows)
    assert main(["eval", "prmbench", str(data), "--scores", f"prm={scores}", "--draws", "200", "--json"]) == 0
    shown = figures(capsys.readouterr().out)
    for subset in ("circular", "multi_solutions", "all"):
        assert shown[subset, "reward", "prm_score", "fixed: 0.5 (published)"]["value"] == 1.0


def test_prmbench_tunes_on_rows_that_it_does_not_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = prm_bench(tmp_path)
    command = ["eval", "prmbench", str(data), "--draws", "200", "--json", "--dev-fraction", "0.5"]
    assert main([*command, "--scores", f"prm={perfect_scores(data, 'prmbench')}"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["counts"]["all"]["responses"] in (3, 6, 9)
    assert any("tuned on 0.5 of the rows" in str(row["threshold_from"]) for row in content["results"])


@pytest.mark.parametrize(
    ("fraction", "left"), [("1e-9", "12 rows to report and 0"), ("0.999999999", "0 rows to report and 12")]
)
def test_prmbench_refuses_to_tune_on_or_report_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fraction: str, left: str
) -> None:
    data = prm_bench(tmp_path)
    command = ["eval", "prmbench", str(data), "--draws", "200", "--dev-fraction", fraction]
    assert main([*command, "--scores", f"prm={perfect_scores(data, 'prmbench')}"]) == 2
    error = f"--dev-fraction: leaves {left} to tune on. Use more rows or another fraction"
    assert error in capsys.readouterr().err


def test_prmbench_leaves_out_a_category_whose_rows_are_all_tuned_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = prm_bench(tmp_path)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    # One question is on the tuned side; the only row of this category asks it.
    write_rows(data, [*rows, {**rows[0], "idx": "deception-0", "classification": "deception"}])
    names = {rollout.prompt_id for rollout in read_rollouts_as(data, "prmbench")}
    first = next(iter(read_rollouts_as(data, "prmbench"))).prompt_id
    fraction = next(share / 100 for share in range(1, 100) if in_share(first, share / 100))
    assert not all(in_share(name, fraction) for name in names)
    command = ["eval", "prmbench", str(data), "--draws", "200", "--json", "--dev-fraction", str(fraction)]
    assert main([*command, "--scores", f"prm={perfect_scores(data, 'prmbench')}"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert "deception: all rows are tuned on, so none is reported" in content["notes"]
    assert {"circular", "all"} <= content["counts"].keys()
    assert "deception" not in content["counts"]


def test_steps_writes_tables_and_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = process_bench(tmp_path, "some", [0, 1, -1, 2]), tmp_path / "out"
    command = [
        "eval",
        "steps",
        f"mine={data}",
        "--format",
        "processbench",
        "--draws",
        "200",
        "--out",
        str(out),
    ]
    assert main([*command, "--scores", f"prm={perfect_scores(data, 'processbench')}"]) == 0
    counts = "4 problems, 4 responses, 3 responses with error, 9 labelled steps, 3 wrong steps"
    assert counts in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())["results"]
    with open(out / "results.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["metric"] for row in rows] == [row["metric"] for row in results]
    assert float(rows[0]["value"]) == results[0]["value"] == 1.0
    assert r"\toprule" in (out / "tables.tex").read_text()
    assert "| mine | prm | step |" in (out / "tables.md").read_text()
    assert json.loads((out / "results.json.manifest.json").read_text())["command"] == "eval steps"


def test_results_of_another_scorer_name_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = process_bench(tmp_path, "some", [0, 1, -1, 2]), tmp_path / "out"
    command = ["eval", "processbench", str(data), "--draws", "200", "--out", str(out)]
    scores = perfect_scores(data, "processbench")
    assert main([*command, "--scores", f"prm={scores}"]) == 0
    before = (out / "results.json").read_bytes()
    assert main([*command, "--scores", f"prm={scores}"]) == 0
    assert main([*command, "--scores", f"other={scores}"]) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert (out / "results.json").read_bytes() == before
    assert main([*command, "--scores", f"other={scores}", "--overwrite"]) == 0


@pytest.mark.parametrize("command", ["processbench", "prmbench"])
def test_scorers_are_compared_on_the_same_responses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    is_prm_bench = command == "prmbench"
    data = prm_bench(tmp_path) if is_prm_bench else process_bench(tmp_path, "some", [0, 1, -1, 2])
    scores = perfect_scores(data, command)
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    most, other, few = (tmp_path / f"{name}.jsonl" for name in ("most", "other", "few"))
    write_rows(most, rows[1:])
    write_rows(other, rows[:-1])
    write_rows(few, rows[:1])
    words = ["eval", command, f"mine={data}", "--draws", "200", "--json", "--scores"]
    assert main([*words, f"a={scores}", "--scores", f"b={most}"]) == 2
    message = f"{most}: lacks the scores of 1 rollout of mine, first {rows[0]['id']!r}"
    assert message in capsys.readouterr().err
    assert main([*words, f"a={other}", "--scores", f"b={most}", "--skip-invalid"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["counts"]["all" if is_prm_bench else "mine"]["responses"] == len(rows) - 2
    for scorer in "ab":
        assert content["excluded"][f"responses without a score (mine, {scorer})"] == 1
        assert content["excluded"][f"responses that another scorer lacks (mine, {scorer})"] == 1
    assert main([*words, f"a={few}", "--scores", f"b={most}", "--skip-invalid"]) == 2
    assert "mine: no response can be evaluated for every scorer" in capsys.readouterr().err


def test_prmbench_needs_every_scorer_in_all_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = prm_bench(tmp_path)
    scores = perfect_scores(data, "prmbench")
    command = ["eval", "prmbench", f"x={data}", f"y={data}", "--draws", "200"]
    assert main([*command, "--scores", f"a={scores}", "--scores", f"b/x={scores}"]) == 2
    assert "--scores: the scores of 'b' for 'y' are missing" in capsys.readouterr().err


def test_models_score_the_data_with_the_options_of_score(
    tmp_path: Path, saved_pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = process_bench(tmp_path, "some", [0, 1, -1, 2])
    policy, reference = map(str, saved_pair)
    pair = ["--reference", reference, "--beta", "0.3"]
    rewards = {}
    for name, options in {
        "clean": [*pair, "--cache", str(tmp_path / "cache")],
        "floor": [*pair, "--reference-floor", "0.5"],
        "free": ["--beta", "0.3", "--reference-free"],
        "untrained": ["--family", "log-probability"],
        "published": [*pair, "--convention", "processbench"],
    }.items():
        command = ["eval", "steps", str(data), "--format", "processbench", "--draws", "200"]
        assert main([*command, "--prm", f"tiny={policy}", "--out", str(tmp_path / name), *options]) == 0, name
        assert "some" in capsys.readouterr().out
        rows = (tmp_path / name / "some" / "scores-tiny.jsonl").read_text().splitlines()
        rewards[name] = [json.loads(row)["reward"] for row in rows]
    assert len({tuple(values) for values in rewards.values()}) == len(rewards)
    assert any((tmp_path / "cache").iterdir())


def test_a_model_may_be_one_that_a_server_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = process_bench(tmp_path, "some", [0, -1]), tmp_path / "out"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens there
        server = f"http://127.0.0.1:{taken.getsockname()[1]}"
        words = ["eval", "steps", str(data), "--format", "processbench", "--out", str(out)]
        assert main([*words, "--prm", f"served={server}"]) == 2
    assert f"{server}: does not answer" in capsys.readouterr().err


def test_a_wrong_option_of_a_model_stops_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = process_bench(tmp_path, "some", [0, -1]), tmp_path / "out"
    command = ["eval", "prmbench", str(data), "--prm", f"tiny={tmp_path}", "--out", str(out)]
    assert main([*command, "--reference-floor", "2"]) == 2
    assert "--reference-floor: must lie in [0, 1)" in capsys.readouterr().err
    assert not out.exists()


def test_data_without_labels_are_named_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "plain.jsonl"
    write_rows(
        data, [{"id": "a", "prompt_id": "a", "index": 0, "prompt": "?", "response": "one", "correct": True}]
    )
    assert main(["eval", "steps", str(data), "--scores", "prm=missing.jsonl"]) == 2
    error = capsys.readouterr().err
    assert f"{data}: no response has step labels" in error
    assert "step rule" not in error


def test_one_problem_and_data_without_errors_say_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for labels, note in (
        ([0], "with one problem there are neither intervals nor tests"),
        ([-1, -1], "mine: no response has an error, so there is no F1 and no AUC"),
        ([0, 1], "mine: every response has an error, so there is no F1"),
        ([0, -1, 1], "mine: 3 problems are few"),
    ):
        data = process_bench(tmp_path, f"some{len(labels)}{labels[0]}", labels)
        command = ["eval", "processbench", f"mine={data}", "--draws", "200", "--json"]
        assert main([*command, "--scores", f"prm={perfect_scores(data, 'processbench')}"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert any(note in line for line in content["notes"]), content["notes"]
        if len(labels) == 1:
            assert all(row["low"] is None and row["high"] is None for row in content["results"])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "--scores: give --scores SCORER=FILE"),
        (["--scores", "file.jsonl"], "--scores: 'file.jsonl' is not SCORER=FILE"),
        (["--scores", "prm/other=x.jsonl"], "there is no data named 'other'"),
        (["--scores", "prm=missing.jsonl"], "missing.jsonl: no such file"),
        (["--prm", "prm=dir"], "--prm: needs --out"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    data = process_bench(tmp_path, "some", [0, -1])
    assert main(["eval", "steps", str(data), "--format", "processbench", *extra]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "files", "options"),
    [
        ("prmbench", ["prmbench_circular", "prmbench_confidence", "prmbench_counterfactual"], []),
        ("steps", ["bigbench_mistake_multistep_arithmetic"], ["--format", "bigbench-mistake"]),
    ],
)
def test_real_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, files: list[str], options: list[str]
) -> None:
    if not (SHARED / "data").is_dir():
        pytest.skip("shared data is not there")
    paths = [str(SHARED / "data" / f"{name}.jsonl") for name in files]
    words = ["eval", command, *paths, *options, "--draws", "200", "--json"]
    format_name = "prmbench" if command == "prmbench" else "bigbench-mistake"
    for name in files:
        scores = tmp_path / f"{name}.jsonl"
        rollouts = read_rollouts_as(SHARED / "data" / f"{name}.jsonl", format_name)
        write_rows(
            scores,
            (
                score(
                    rollout,
                    [i for i, label in enumerate(rollout.step_labels or ()) if label.label < 0.5],
                    0.01,
                )
                for rollout in rollouts
            ),
        )
        words += ["--scores", f"prm/{name}={scores}"]
    assert main(words) == 0
    shown = figures(capsys.readouterr().out)
    assert all(row["value"] == 1.0 for key, row in shown.items() if key[1:3] == ("reward", "auc"))
