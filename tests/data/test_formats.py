from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepcredit.data import FORMATS, named_format, read_as, read_rollouts_as
from stepcredit.errors import DataError, UserError


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_format_is_known_by_its_name() -> None:
    assert [form.name for form in FORMATS.values()] == list(FORMATS)
    assert {name for name, form in FORMATS.items() if form.write} == {
        "prompts",
        "rollouts",
        "trl-preference",
        "trl-unpaired",
        "trl-stepwise",
        "openrlhf-ce",
        "verl",
        "math-shepherd",
    }
    with pytest.raises(UserError, match="there is no format 'x'"):
        named_format("x")


def test_columns_inside_objects_are_named_by_dots(tmp_path: Path) -> None:
    row = {"prompt": "1+1=", "checker": {"style": "rule", "truth": 2}, "info": {"index": 7}, "a.b": "x"}
    path = write(tmp_path / "prompts.jsonl", row)
    columns = {"answer": "checker.truth", "id": "info.index", "note": "a.b"}
    (prompt,) = read_as(path, "prompts", columns=columns)
    assert (prompt.id, prompt.answer, prompt.extras["note"]) == ("7", "2", "x")
    assert prompt.extras["checker"] == row["checker"]
    assert "a.b" not in prompt.extras


@pytest.mark.parametrize("column", ["checker.trust", "checker.truth.more", "nothing"])
def test_a_column_that_is_not_there_makes_a_malformed_row(tmp_path: Path, column: str) -> None:
    good = {"prompt": "1+1=", "checker": {"truth": 2}, column: "3"}
    path = write(tmp_path / "prompts.jsonl", good, {"prompt": "1+1=", "checker": {"truth": 2}})
    with pytest.raises(DataError, match=r"prompts\.jsonl:2: there is no column"):
        list(read_as(path, "prompts", columns={"answer": column}))
    reader = read_as(path, "prompts", columns={"answer": column}, skip_invalid=True)
    assert [prompt.answer for prompt in reader] == ["3"]
    assert reader.num_skipped == 1


def test_prompts_are_not_rollouts(tmp_path: Path) -> None:
    path = write(tmp_path / "prompts.jsonl", {"id": "a", "prompt": "q"})
    with pytest.raises(UserError, match="holds prompts, not rollouts"):
        read_rollouts_as(path, "prompts")


def test_a_malformed_row_of_a_foreign_format_is_named_or_skipped(tmp_path: Path) -> None:
    good = {"prompt": "q", "completion": "x", "label": True}
    path = write(tmp_path / "rows.jsonl", good, {**good, "label": "yes"}, good)
    with pytest.raises(DataError, match=r"rows\.jsonl:2: field 'label' must be true or false"):
        list(read_rollouts_as(path, "trl-unpaired"))
    reader = read_rollouts_as(path, "trl-unpaired", skip_invalid=True)
    assert [rollout.id for rollout in reader] == ["0", "2"]
    assert reader.num_skipped == 1


@pytest.mark.parametrize("extension", ["json", "csv", "parquet"])
def test_foreign_formats_come_in_any_kind_of_file(tmp_path: Path, extension: str) -> None:
    from stepcredit.data import write_rows

    rows = [
        {"prompt": "q", "completions": ["a", "b"], "labels": [True, False]},
        {"prompt": "r", "completions": ["c"], "labels": [True]},
    ]
    path = tmp_path / f"rows.{extension}"
    write_rows(path, rows)
    assert [rollout.response for rollout in read_rollouts_as(path, "trl-stepwise")] == ["a\nb", "c"]
