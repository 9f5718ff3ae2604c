from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from stepcredit.data import read_as, read_prompts, write_rows
from stepcredit.errors import DataError
from stepcredit.pipelines.convert import Options, Result, run


def row(index: int | None, question: str, answer: Any) -> dict[str, Any]:
    return {
        "data_source": "sums",
        "prompt": [{"role": "user", "content": question}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"split": "train", "index": index},
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "train.parquet"
    write_rows(path, [row(7, "1+1=", "2"), row(9, "2+2=", "4")])
    return path


def convert(source: Path, out: Path, **options: Any) -> Result:
    return run(Options(source=str(source), out=out, **options))


def test_the_answer_and_the_id_lie_inside_objects(source: Path) -> None:
    first, second = read_as(source, "verl")
    assert (first.id, first.answer, second.id, second.answer) == ("7", "2", "9", "4")
    assert first.prompt == [{"role": "user", "content": "1+1="}]
    assert first.extras["ability"] == "math"


def test_commands_that_read_prompts_take_the_answer_by_its_column(source: Path) -> None:
    columns = {"answer": "reward_model.ground_truth"}
    assert [prompt.answer for prompt in read_as(source, "prompts", columns=columns)] == ["2", "4"]
    with_ids = read_as(source, "prompts", columns={**columns, "id": "extra_info.index"})
    assert [prompt.id for prompt in with_ids] == ["7", "9"]
    assert [prompt.answer for prompt in read_prompts(source)] == [None, None]


def test_indices_may_repeat_or_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row(0, "q", 1), row(0, "r", 2), row(None, "s", 3)]), encoding="utf-8")
    names = [prompt.id for prompt in read_as(path, "verl")]
    assert names[:2] == ["0/0", "0/1"]
    assert names[2].startswith("2-")


def test_rows_come_back_as_columns_that_verl_reads(source: Path, tmp_path: Path) -> None:
    prompts, back = tmp_path / "prompts.jsonl", tmp_path / "back.parquet"
    convert(source, prompts, from_format="verl", to_format="prompts")
    result = convert(prompts, back, from_format="prompts", to_format="verl")
    assert result.lost == {}
    table, original = pyarrow.parquet.read_table(back), pyarrow.parquet.read_table(source)
    assert table.to_pylist() == original.to_pylist()
    assert {field.name: field.type for field in table.schema} == {
        field.name: field.type for field in original.schema
    }


def test_prompts_of_rollouts_become_rows_of_verl(tmp_path: Path) -> None:
    rollout: dict[str, Any] = {
        "prompt_id": "p",
        "prompt": "1+1=",
        "response": "2",
        "answer": "2",
        "note": "x",
    }
    rows = [{**rollout, "id": "a"}, {**rollout, "id": "b"}, {**rollout, "id": "c", "prompt_id": "q"}]
    rows.append({**rollout, "id": "d", "prompt_id": "r", "answer": None})
    write_rows(tmp_path / "rollouts.jsonl", rows)
    result = convert(tmp_path / "rollouts.jsonl", tmp_path / "out.parquet", to_format="verl")
    assert result.lost == {"responses": 4, "prompts without an answer": 1}
    first, second = pyarrow.parquet.read_table(result.out).to_pylist()
    assert first == {
        "data_source": "unknown",
        "prompt": [{"role": "user", "content": "1+1="}],
        "ability": "unknown",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"index": 0, "id": "p"},
    }
    assert second["extra_info"] == {"index": 1, "id": "q"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward_model": "rule"}, "field 'reward_model' must be an object with ground_truth"),
        ({"reward_model": {"ground_truth": {}}}, "field 'ground_truth' must be a string, a number or null"),
        ({"extra_info": {"index": [1]}}, "field 'index' must be a string that is not empty, or a whole"),
        ({"prompt": None}, "field 'prompt' must be a string or a list"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_rows(tmp_path / "rows.jsonl", [{**row(0, "q", "1"), **change}])
    with pytest.raises(DataError, match=rf"rows\.jsonl:1: {message}"):
        list(read_as(tmp_path / "rows.jsonl", "verl"))
