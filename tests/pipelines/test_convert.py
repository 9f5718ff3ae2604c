from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepcredit.data import read_rollouts, rollout_from_json
from stepcredit.errors import DataError, UserError
from stepcredit.pipelines.convert import Options, Result, run
from stepcredit.runs import read_manifest

ROLLOUTS: list[dict[str, Any]] = [
    {"id": "a0", "prompt_id": "a", "prompt": "1+1=", "response": "2", "correct": True, "source": "s"},
    {"id": "a1", "prompt_id": "a", "prompt": "1+1=", "response": "3", "correct": False, "policy": "mid"},
    {"id": "b0", "prompt_id": "b", "prompt": "2+2=", "response": "4", "answer": "4"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def convert(tmp_path: Path, rows: list[dict[str, Any]], name: str = "out.jsonl", **options: Any) -> Result:
    source = write(tmp_path / "source.jsonl", rows)
    return run(Options(source=str(source), out=tmp_path / name, **options))


def test_what_the_new_format_has_no_place_for_is_said(tmp_path: Path) -> None:
    result = convert(tmp_path, ROLLOUTS, to_format="trl-unpaired")
    assert read(result.out) == [
        {"prompt": "1+1=", "completion": "2", "label": True, "source": "s"},
        {"prompt": "1+1=", "completion": "3", "label": False},
    ]
    assert result.lost == {"id": 2, "policy": 1, "prompt_id": 2, "responses without a verdict": 1}
    assert "lost: policy (1)" in result.to_text()
    manifest = read_manifest(result.out)
    assert manifest is not None
    assert manifest["lost"] == result.lost


@pytest.mark.parametrize("extension", ["jsonl", "json.gz", "parquet"])
def test_rollouts_lose_nothing_between_files_that_hold_everything(tmp_path: Path, extension: str) -> None:
    result = convert(tmp_path, ROLLOUTS, f"out.{extension}")
    assert result.lost == {}
    assert "nothing lost" in result.to_text()
    assert list(read_rollouts(result.out)) == [rollout_from_json(row) for row in ROLLOUTS]


def test_csv_says_that_types_of_extras_are_lost(tmp_path: Path) -> None:
    rows = [{**ROLLOUTS[0], "sampling": {"seed": 1}}, {**ROLLOUTS[1], "extra": [1]}]
    assert convert(tmp_path, rows, "out.csv").lost == {"types of extra fields": 1}


def test_columns_of_other_names_are_mapped(tmp_path: Path) -> None:
    rows = [
        {"question": "1+1=", "solution": "easy", "gold": 2, "prompt": "dropped"},
        {"question": "2+2=", "gold": 4},
    ]
    result = convert(
        tmp_path,
        rows,
        from_format="prompts",
        to_format="prompts",
        column=("prompt=question", "answer=gold"),
    )
    first, second = read(result.out)
    assert first == {"id": first["id"], "prompt": "1+1=", "answer": "2", "solution": "easy"}
    assert second == {"id": second["id"], "prompt": "2+2=", "answer": "4"}
    assert [row["id"].split("-")[0] for row in (first, second)] == ["0", "1"]


def test_prompts_of_rollouts_come_once_each(tmp_path: Path) -> None:
    result = convert(tmp_path, ROLLOUTS, to_format="prompts")
    assert [row["id"] for row in read(result.out)] == ["a", "b"]
    assert result.lost == {"responses": 3}


def test_a_limit_counts_records(tmp_path: Path) -> None:
    assert convert(tmp_path, ROLLOUTS, limit=2).read == 2


def test_the_same_work_is_not_done_again(tmp_path: Path) -> None:
    first = convert(tmp_path, ROLLOUTS, to_format="trl-unpaired")
    again = convert(tmp_path, ROLLOUTS, to_format="trl-unpaired")
    assert again == replace(first, already_done=True)
    with pytest.raises(UserError, match="already exists"):
        convert(tmp_path, ROLLOUTS, to_format="rollouts")


def test_a_local_data_set_is_read_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "questions"
    folder.mkdir()
    write(folder / "test.jsonl", [{"question": "1+1=", "answer": "2"}, {"question": "2+2=", "answer": "4"}])
    options = Options(
        source=f"hub:{folder}:test",
        out=tmp_path / "prompts.jsonl",
        from_format="prompts",
        to_format="prompts",
        column=("prompt=question",),
    )
    assert run(options).written == 2
    assert [(row["prompt"], row["answer"]) for row in read(options.out)] == [("1+1=", "2"), ("2+2=", "4")]
    with pytest.raises(DataError, match="cannot be loaded"):
        run(replace(options, source=f"hub:{folder}:validation", overwrite=True))


def test_a_folder_of_a_saved_data_set_is_known_by_its_content(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    rows = [{"prompt": "1+1=", "answer": 2}, {"prompt": "2+2=", "answer": 4}]
    for name, kept in (("one", rows), ("two", rows[:1])):
        datasets.Dataset.from_list(kept).save_to_disk(str(tmp_path / name))
    options = Options(
        source=str(tmp_path / "one"),
        out=tmp_path / "prompts.jsonl",
        from_format="prompts",
        to_format="prompts",
    )
    assert run(options).written == 2
    assert run(options).already_done
    with pytest.raises(UserError, match="already exists"):
        run(replace(options, source=str(tmp_path / "two")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to_format": "prm800k"}, "the format 'prm800k' is only read"),
        ({"to_format": "alpaca"}, "there is no format 'alpaca'"),
        ({"from_format": "alpaca"}, "there is no format 'alpaca'"),
        ({"from_format": "prompts"}, "prompts have no responses"),
        ({"column": ("prompt",)}, "'prompt' is not FIELD=COLUMN"),
        ({"column": ("prompt=a", "prompt=b")}, "the field 'prompt' is mapped twice"),
        ({"column": ("prompt=question",)}, "there is no column 'question'"),
        ({"subset": "main"}, "--subset: is only for data sets of the hub"),
        ({"limit": 0}, "--limit: must be at least 1, got 0"),
        ({"to_format": "trl-stepwise"}, "nothing to write as trl-stepwise"),
        ({"name": "out.txt"}, "extension is not known"),
        ({"name": "source.jsonl"}, "is the input itself"),
    ],
)
def test_mistakes_are_errors_that_leave_no_output(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        convert(tmp_path, ROLLOUTS, **options)
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source.jsonl"]
