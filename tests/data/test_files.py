from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepcredit.data import (
    count_rows,
    finish_lines,
    prompt_to_json,
    read_prompts,
    read_rollouts,
    read_scores,
    rollout_from_json,
    rollout_to_json,
    write_rows,
)
from stepcredit.data.scores import score_to_json
from stepcredit.errors import DataError
from stepcredit.grading import reasoning_gym
from stepcredit.labelling import autopsv, monte_carlo
from stepcredit.runs import Manifest, ResumableLines

EXTENSIONS = ["jsonl", "jsonl.gz", "json", "json.gz", "parquet", "csv", "csv.gz"]
LOSSLESS = EXTENSIONS[:5]


def rows(count: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{number}",
            "prompt_id": "p",
            "index": number,
            "prompt": 'say, "hé"\n你好',
            "response": "line one\r\n\nline, two\n",
            "correct": [True, False, None][number % 3],
            "sampling": {"temperature": 1.0, "seed": number},
        }
        for number in range(count)
    ]


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_rollouts_come_back_from_every_kind_of_file(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rollouts.{extension}"
    assert write_rows(path, rows()) == 3
    rollouts = list(read_rollouts(path))
    assert rollouts == [rollout_from_json(row) for row in rows()]
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("extension", LOSSLESS)
def test_extras_of_any_shape_survive(tmp_path: Path, extension: str) -> None:
    extras: list[dict[str, Any]] = [
        {
            "mixed": 1,
            "nested": {"a": [1, None]},
            "ids": [1, 2],
            "words": ["x"],
            "sometimes": None,
            "big": 2**80,
        },
        {"mixed": "one", "nested": {}, "ids": [], "words": [], "flag": True, "big": 0},
        {"mixed": None, "ids": [3], "number": 0.5, "empty": []},
    ]
    written = [{**row, **extra} for row, extra in zip(rows(), extras, strict=True)]
    path = tmp_path / f"rollouts.{extension}"
    write_rows(path, written)
    assert [dict(rollout.extras) for rollout in read_rollouts(path)] == extras


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(JSON, min_size=1, max_size=4), extension=st.sampled_from(["jsonl.gz", "json", "parquet"])
)
def test_any_json_value_survives(tmp_path: Path, values: list[Any], extension: str) -> None:
    written = [{"id": str(number), "prompt": "q", "extra": value} for number, value in enumerate(values)]
    path = tmp_path / f"prompts.{extension}"
    write_rows(path, written)
    assert [prompt.extras["extra"] for prompt in read_prompts(path)] == values


def test_reading_streams(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_rows(path, rows(1))
    with open(path, "a", encoding="utf-8") as handle:
        handle.write("{broken\n")
    reader = read_rollouts(path)
    assert next(reader).id == "r0"
    with pytest.raises(DataError, match=r"rollouts\.jsonl:2: not valid JSON"):
        next(reader)


def test_writing_streams_and_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield rows()[0]
        raise RuntimeError("stop")

    for extension in EXTENSIONS:
        with pytest.raises(RuntimeError, match="stop"):
            write_rows(tmp_path / f"out.{extension}", failing())
    assert list(tmp_path.iterdir()) == []


def test_a_file_keeps_its_content_when_rewriting_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write_rows(path, rows(1))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Out of range float"):
        write_rows(path, [{"id": "a", "reward": float("nan")}])
    assert path.read_bytes() == before


def test_gzip_files_do_not_depend_on_the_time(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl.gz", rows())
    write_rows(tmp_path / "b.jsonl.gz", rows())
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "b", ', "not valid JSON"),
        ("[1, 2]", "must be a JSON object"),
        ('{"id": "b", "prompt": "q", "x": NaN}', "NaN is not allowed"),
        ('{"id": "b", "prompt": "q", "x": -Infinity}', "-Infinity is not allowed"),
        ('{"id": "b", "prompt": "q", "x": 1e999}', "too large"),
        ('{"id": "b", "prompt": "\\ud800"}', "surrogate"),
        ('{"id": "b", "prompt": "q", "x": ' + "1" * 5000 + "}", "not valid JSON"),
        ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"id": "b", "prompt": "q", "x": ' + '{"x": ' * 300 + "1" + "}" * 300 + "}", "nested too deeply"),
        ('{"id": "b", "prompt": 3}', "field 'prompt' must be"),
        ('{"id": "a", "prompt": "again"}', "the id 'a' appears twice"),
    ],
)
def test_a_malformed_line_is_named_or_skipped_and_counted(tmp_path: Path, line: str, message: str) -> None:
    good = '{"id": "a", "prompt": "q"}'
    path = write_lines(tmp_path / "prompts.jsonl", good, line, good.replace('"a"', '"c"'))
    with pytest.raises(DataError) as caught:
        list(read_prompts(path))
    assert f"{path}:2: " in str(caught.value)
    assert message in str(caught.value)
    reader = read_prompts(path, skip_invalid=True)
    assert [prompt.id for prompt in reader] == ["a", "c"]
    assert reader.num_skipped == 1
    assert message in str(reader.first_skipped)


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"id": "a", "prompt": "q"}\n{"id": "b", "prompt": "\xff"}\n')
    with pytest.raises(DataError, match=r":2: not valid UTF-8"):
        list(read_prompts(path))


def test_blank_lines_byte_order_marks_and_a_missing_last_newline_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "a", "prompt": "q"}\r\n\n  \n{"id": "b", "prompt": "q"}')
    assert [prompt.id for prompt in read_prompts(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jsonl", None, "no such file"),
        ("rollouts.txt", b"", "extension is not known"),
        ("rollouts.jsonl.gz", b"not gzip", "damaged gzip file"),
        ("rollouts.jsonl.gz", gzip.compress(b'{"id": 1}\n' * 99, mtime=0)[:-12], "damaged gzip file"),
        ("rollouts.parquet", b"not parquet", "not a Parquet file"),
        ("rollouts.csv", b"", "the file is empty"),
        ("rollouts.csv", b"id,id\n", "a column name appears twice"),
        ("rollouts.csv", b'id,prompt\n"a,q\n', "not valid CSV"),
        ("rollouts.json", b'[{"id": "a"', "not valid JSON"),
        ("rollouts.json", b"[", "the array is not closed"),
        ("rollouts.json", b"[] []", "something follows"),
        ("rollouts.json", b'[{"a": 1} {"a": 2}]', "a comma is missing"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_rollouts(path, skip_invalid=True))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        read_rollouts(tmp_path)


@settings(max_examples=50)
@given(
    st.lists(st.dictionaries(st.text(max_size=8), JSON, max_size=4), max_size=6), st.sampled_from([None, 1])
)
def test_json_arrays_decode_as_json_does(values: list[dict[str, Any]], indent: int | None) -> None:
    import tempfile

    from stepcredit.data import json_rows
    from stepcredit.data.sources import read_rows

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        path.write_text(json.dumps(values, indent=indent), encoding="utf-8")
        before, json_rows.CHUNK_CHARACTERS = json_rows.CHUNK_CHARACTERS, 7
        try:
            assert [row for _, row in read_rows(path)] == values
        finally:
            json_rows.CHUNK_CHARACTERS = before


def test_a_json_file_of_lines_is_read_as_lines(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "prompts.json", '{"id": "a", "prompt": "q"}', '{"id": "b", "prompt": "q"}')
    assert [prompt.id for prompt in read_prompts(path)] == ["a", "b"]


def test_csv_cells_of_known_fields_have_their_types(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "rollouts.csv",
        "id,prompt_id,prompt,response,correct,index,answer,sampling,note",
        'a,7,"[{""role"": ""user"", ""content"": ""q""}]","[{""x"": 1}]",True,2,18,"{""seed"": 1}",5',
        "b,7,q,,,,,,",
    )
    first, second = read_rollouts(path)
    assert (first.prompt_id, first.correct, first.index, first.answer) == ("7", True, 2, "18")
    assert first.prompt == [{"role": "user", "content": "q"}]
    assert first.response == '[{"x": 1}]'
    assert (first.sampling, first.extras) == ({"seed": 1}, {"note": "5"})
    assert (second.response, second.correct, second.answer, second.sampling) == ("", None, None, None)


def test_a_csv_file_keeps_what_commands_note_for_other_commands(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "prompt_id": "p", "prompt": "q", "response": "r", "correct": True, field: {"end": [1]}}
        for field in (reasoning_gym.FIELD, monte_carlo.FIELD, autopsv.FIELD, "search")
    ]
    for row in rows:
        write_rows(tmp_path / "rollouts.csv", [row])
        (rollout,) = read_rollouts(tmp_path / "rollouts.csv")
        assert dict(rollout.extras) == {name: row[name] for name in row if row[name] == {"end": [1]}}


def test_a_csv_line_with_too_few_cells_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "prompts.csv", "id,prompt", "a,q", "b")
    with pytest.raises(DataError, match=r":3: 1 cell, but the header names 2"):
        list(read_prompts(path))


def test_parquet_files_of_others_are_read(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "prompts.parquet"
    table = pyarrow.table(
        {
            "id": [1, 2],
            "prompt": [[{"role": "user", "content": "q"}], [{"role": "user", "content": "r"}]],
            "answer": [18, 2],
        }
    )
    pyarrow.parquet.write_table(table, path)
    first, second = read_prompts(path)
    assert (first.id, first.answer, second.id) == ("1", "18", "2")
    assert first.prompt == [{"role": "user", "content": "q"}]


def write_table(path: Path, **columns: list[Any]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_objects_are_columns_that_other_tools_read(tmp_path: Path) -> None:
    import pyarrow.parquet

    turns = [{"role": "user", "content": "q"}]
    written = [
        {"id": "a", "prompt": turns, "checker": {"style": "rule", "truth": None}, "mixed": {"a": 1}},
        {"id": "b", "prompt": turns * 2, "checker": {"style": "rule", "truth": "2"}, "mixed": {"b": 1}},
    ]
    path = tmp_path / "prompts.parquet"
    write_rows(path, written)
    table = pyarrow.parquet.read_table(path)
    assert table.column("prompt").to_pylist() == [turns, turns * 2]
    assert table.column("checker").to_pylist() == [row["checker"] for row in written]
    assert table.column("mixed").to_pylist() == ['{"a": 1}', '{"b": 1}']
    assert [prompt_to_json(prompt) for prompt in read_prompts(path)] == written


def test_times_and_decimal_numbers_of_tables_are_text(tmp_path: Path) -> None:
    day = datetime(2025, 3, 1, 12, 30)
    path = write_table(
        tmp_path / "p.parquet", prompt=["q"], when=[day], price=[Decimal("1.10")], days=[[day.date()]]
    )
    (prompt,) = read_prompts(path)
    assert prompt.extras == {"when": "2025-03-01T12:30:00", "price": "1.10", "days": ["2025-03-01"]}


@pytest.mark.parametrize("value", [float("inf"), float("nan"), b"bytes"])
def test_a_value_that_json_cannot_hold_is_named_with_its_row(tmp_path: Path, value: object) -> None:
    path = write_table(tmp_path / "p.parquet", prompt=["q", "r", "s"], odd=[None, value, None])
    with pytest.raises(DataError, match=r"p\.parquet:2: column 'odd' holds a value that JSON cannot"):
        list(read_prompts(path))
    reader = read_prompts(path, skip_invalid=True)
    assert [prompt.prompt for prompt in reader] == ["q", "s"]


def test_a_parquet_file_with_a_flipped_bit_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.parquet"
    write_rows(path, rows())
    content, generator = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(content)
        damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            list(read_rollouts(path))
        except DataError:
            refused += 1
    assert 0 < refused < 100


def save(folder: Path, *rows: dict[str, Any]) -> Path:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_list(list(rows)).save_to_disk(str(folder))
    return folder


def test_a_folder_of_a_saved_data_set_is_read(tmp_path: Path) -> None:
    folder = save(tmp_path / "set", *rows())
    assert [rollout.id for rollout in read_rollouts(folder)] == ["r0", "r1", "r2"]
    assert count_rows(folder) == 3


def test_a_saved_data_set_of_several_splits_asks_for_one(tmp_path: Path) -> None:
    import datasets

    train = datasets.Dataset.from_list(rows())
    datasets.DatasetDict(train=train, test=train.select([1])).save_to_disk(str(tmp_path / "sets"))
    datasets.DatasetDict(test=train.select([2])).save_to_disk(str(tmp_path / "one"))
    with pytest.raises(DataError, match=r"holds 2 splits\. Name one of them: .*sets/train, .*sets/test"):
        read_rollouts(tmp_path / "sets")
    assert [rollout.id for rollout in read_rollouts(tmp_path / "sets" / "test")] == ["r1"]
    assert [rollout.id for rollout in read_rollouts(tmp_path / "one")] == ["r2"]


@pytest.mark.parametrize("state", ["", "[]", '{"_data_files": 5}', '{"_data_files": [{"filename": "../x"}]}'])
def test_a_damaged_folder_of_a_data_set_is_named(tmp_path: Path, state: str) -> None:
    folder = save(tmp_path / "set", *rows())
    (folder / "state.json").write_text(state, encoding="utf-8")
    with pytest.raises(DataError, match=r"state\.json: "):
        list(read_rollouts(folder))
    (folder / "state.json").write_text('{"_data_files": [{"filename": "gone.arrow"}]}', encoding="utf-8")
    with pytest.raises(DataError, match=r"gone\.arrow: not an Arrow file"):
        count_rows(folder)


@pytest.mark.parametrize("extension", ["jsonl", "jsonl.gz", "parquet"])
def test_rows_are_counted_without_parsing(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rows.{extension}"
    write_rows(path, rows(5))
    assert count_rows(path) == 5


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_resumable_output_can_end_in_every_kind_of_file(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"out.{extension}"
    lines = ResumableLines(path, Manifest("test", {}))
    with lines:
        for row in rows():
            lines.append(row)
    lines.commit(finish_lines(path))
    assert [rollout_to_json(rollout)["id"] for rollout in read_rollouts(path)] == ["r0", "r1", "r2"]


def test_scores_are_read(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "scores.jsonl",
        '{"id": "a", "prompt_id": "p", "reward": 1, "steps": [], "aggregates": {}, '
        '"num_tokens": 0, "scorer": "s"}',
    )
    (score,) = read_scores(path)
    assert score.reward == 1.0


def test_rows_without_ids_get_the_same_ones_on_every_reading(tmp_path: Path) -> None:
    row = {"prompt": "q", "response": "a"}
    lines = [json.dumps(row), json.dumps({**row, "id": "own", "prompt_id": "p"}), "{broken", json.dumps(row)]
    path = write_lines(tmp_path / "rollouts.jsonl", *lines)
    first, again = (list(read_rollouts(path, skip_invalid=True)) for _ in range(2))
    assert first == again
    assert [rollout.id.split("-")[0] for rollout in first] == ["0", "own", "3"]
    assert first[0].prompt_id == first[2].prompt_id


def test_prompts_need_no_more_than_a_prompt(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "prompts.jsonl", '{"prompt": "q", "answer": 2}', '{"prompt": "q"}')
    first, second = read_prompts(path)
    assert (first.prompt, first.answer, second.answer) == ("q", "2", None)
    assert first.id != second.id


def test_ends_that_say_neither_are_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"prompt": "q", "response": "a"}
    reasons = ["eos", "tool_calls", "abort", "tool_calls", "length", None]
    path = write_lines(
        tmp_path / "rollouts.jsonl", *(json.dumps({**row, "finish_reason": reason}) for reason in reasons)
    )
    reader = read_rollouts(path)
    ends = [rollout.finish_reason for rollout in reader]
    assert ends == ["stop", None, None, None, "length", None]
    assert reader.unclear_ends == {"tool_calls": 2, "abort": 1}
    list(read_rollouts(path))
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "3 responses end for a reason other than" in warning
    assert "'tool_calls' (2), 'abort' (1)" in warning


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_carriage_return_ends_no_row(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rollouts.{extension}"
    row = {**rows(1)[0], "prompt": "\r", "response": "10%\r20%\rdone"}
    write_rows(path, [row, *rows(2)[1:]])
    assert [rollout.response for rollout in read_rollouts(path)] == [row["response"], rows()[1]["response"]]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_responses_of_several_turns_come_back_as_turns(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rollouts.{extension}"
    turns = [
        {"role": "assistant", "content": "let me see"},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "It is 4."},
    ]
    row = rollout_to_json(rollout_from_json({**rows(1)[0], "response": turns}))
    write_rows(path, [row, *rows(2)[1:]])
    assert rollout_to_json(next(read_rollouts(path))) == row


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_scores_come_back_with_their_tokens_and_texts(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"scores.{extension}"
    step = {"index": 0, "text": "r", "start": 0, "end": 1, "reward": 1.0, "value": 1.0}
    plain = {"id": "a", "prompt_id": "p", "reward": 1.0, "steps": [step], "aggregates": {"min": 1.0}}
    plain |= {"num_tokens": 1, "scorer": "s"}
    scores = [plain, {**plain, "id": "b", "scored_text": "r", "token_rewards": [0.5], "token_ends": [1]}]
    write_rows(path, scores)
    assert [score_to_json(score) for score in read_scores(path)] == scores
