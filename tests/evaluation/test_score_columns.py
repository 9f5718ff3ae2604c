import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.evaluation.builders import rollout, score

from stepcredit.data import score_to_json, write_rows
from stepcredit.errors import DataError
from stepcredit.evaluation import score_columns as module
from stepcredit.evaluation.labelled_steps import join_labels
from stepcredit.evaluation.samples import join
from stepcredit.evaluation.score_columns import read_many_score_columns, read_score_columns, score_columns
from stepcredit.types import StepLabel


def row(name: str = "r0", **changes: Any) -> dict[str, Any]:
    return {**score_to_json(score(rollout(name, "a", correct=True), (1.0, -0.5))), **changes}


def test_columns_hold_what_the_rows_say(tmp_path: Path) -> None:
    write_rows(tmp_path / "scores.jsonl", [row("r0"), row("r1", reward=3, aggregates={"sum": 2})])
    columns = read_score_columns(tmp_path / "scores.jsonl")
    assert columns.ids == ("r0", "r1")
    np.testing.assert_array_equal(columns.scores["reward"], [0.5, 3.0])
    np.testing.assert_array_equal(columns.scores["min"], [-0.5, np.nan])
    np.testing.assert_array_equal(columns.scores["sum"], [np.nan, 2.0])
    np.testing.assert_array_equal(columns.step_offsets, [0, 2, 4])
    np.testing.assert_array_equal(columns.step_rewards, [1.0, -0.5, 1.0, -0.5])
    np.testing.assert_array_equal(columns.step_ends, [2, 3, 2, 3])
    assert not columns.rewritten


def test_an_id_that_is_a_number_is_text(tmp_path: Path) -> None:
    write_rows(tmp_path / "scores.jsonl", [row("r0"), row("r1", id=7, prompt_id=12)])
    columns = read_score_columns(tmp_path / "scores.jsonl")
    assert (columns.ids[1], columns.prompt_ids[1]) == ("7", "12")


def test_records_and_files_give_the_same_columns(tmp_path: Path) -> None:
    scores = [score(rollout(f"r{i}", "a", correct=True), (float(i), -1.0)) for i in range(3)]
    write_rows(tmp_path / "scores.jsonl", map(score_to_json, scores))
    from_file, from_records = read_score_columns(tmp_path / "scores.jsonl"), score_columns(scores)
    np.testing.assert_array_equal(from_file.step_values, from_records.step_values)
    assert from_file.ids == from_records.ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": "high"}, "field 'reward' must be a finite number"),
        ({"aggregates": {"min": None}}, "field 'aggregates.min' must be a finite number"),
        ({"steps": None}, "field 'steps' must be a list"),
        ({"steps": [{"index": 0}]}, r"steps\[0\]"),
        ({"id": None}, "field 'id' must be a string"),
        ({"num_tokens": -1}, "field 'num_tokens' must be a whole number"),
        ({"reward": True}, "field 'reward' must be a finite number"),
        ({"scorer": 5}, "field 'scorer' must be a string"),
        ({"aggregates": {"reward": 1.0}}, "an aggregate cannot be called 'reward'"),
    ],
)
def test_a_malformed_row_is_named_by_line_and_field(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "scores.jsonl"
    write_rows(path, [row("r0"), row("r1", **changes)])
    with pytest.raises(DataError, match=rf"{path.name}:2: .*{message}"):
        read_score_columns(path)
    columns = read_score_columns(path, skip_invalid=True)
    assert columns.num_skipped == 1
    assert columns.ids == ("r0",)
    assert len(columns.step_rewards) == 2


def test_an_id_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "scores.jsonl", [row("r0"), row("r0")])
    with pytest.raises(DataError, match="the id 'r0' appears twice"):
        read_score_columns(tmp_path / "scores.jsonl")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no scores"):
        read_score_columns(tmp_path / "scores.jsonl")


def test_large_files_are_read_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{index}.jsonl" for index in range(2)]
    for index, path in enumerate(paths):
        path.write_text(json.dumps(row(f"r{index}")) + "\n")
    monkeypatch.setattr(module, "_BYTES_WORTH_A_PROCESS", 10)
    assert [columns.ids for columns in read_many_score_columns(paths)] == [("r0",), ("r1",)]
    with pytest.raises(DataError, match="no such file"):
        read_many_score_columns([*paths, tmp_path / "missing.jsonl"])


def test_steps_past_the_response_are_refused() -> None:
    response = rollout("r0", "a", correct=True)
    columns = score_columns([score(response, (1.0, -0.5))])
    columns.check_text(0, response)
    with pytest.raises(DataError, match="the steps of 'r0' end at character 3, its response at 2"):
        columns.check_text(0, replace(response, response="a\n"))
    rewritten = score_columns([replace(score(response, (1.0, -0.5)), scored_text="a\nb")])
    rewritten.check_text(0, replace(response, response="a\n"))
    with pytest.raises(DataError, match="end at character 3"):
        join([replace(response, response="a\n")], {"prm": columns})


def test_scores_of_other_responses_with_the_same_ids_are_refused(tmp_path: Path) -> None:
    response = rollout("r0", "a", correct=True)
    sampled_again = replace(response, response="a\nc", step_labels=(StepLabel(2, 1.0), StepLabel(3, 0.0)))
    write_rows(tmp_path / "scores.jsonl", [row("r0")])
    columns = read_score_columns(tmp_path / "scores.jsonl")
    join([response], {"prm": columns})
    message = r"scores\.jsonl: the steps of 'r0' hold other text than its response"
    with pytest.raises(DataError, match=message):
        join([sampled_again], {"prm": columns})
    with pytest.raises(DataError, match=message):
        join_labels([sampled_again], columns)


def test_only_the_text_of_steps_is_compared() -> None:
    """Neither what lies between them nor a response whose text was rewritten, or without steps."""
    response = replace(rollout("r0", "a", correct=True), response="a -- \ud83db")
    given = score(response, (1.0, -0.5), ("a", "\ud83db"))
    first, second = given.steps
    apart = replace(given, steps=(first, replace(second, start=5, end=7)))
    score_columns([apart]).check_text(0, response)
    with pytest.raises(DataError, match="other text"):
        score_columns([apart]).check_text(0, replace(response, response="a -- cb"))
    for unknown in (replace(given, steps=()), replace(given, scored_text="a\ud83db")):
        score_columns([unknown]).check_text(0, response)
