from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import DataError, UserError
from stepcredit.grading import Grade, Grader, GradingItem
from stepcredit.pipelines import grade
from stepcredit.pipelines.grade import Options, run
from stepcredit.runs import read_manifest


def row(name: str, response: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "prompt_id": name[0], "prompt": "1+1=", "response": response, "answer": "2", **fields}


ROWS = [
    row("a0", "1+1=2\nA: 2", note={"kept": [1]}),
    row("a1", "1+1=3\nA: 3"),
    row("a2", "A: 2.0"),
    row("b0", "A: 2", correct=False, prediction="old"),
    row("b1", "A: 2", answer=None),
    row("b2", "no idea"),
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    rollouts = write(tmp_path / "rollouts.jsonl", ROWS)
    return Options(rollouts=rollouts, grader="numeric", out=tmp_path / "graded.jsonl")


def test_rollouts_get_verdicts_and_predictions_in_their_order(options: Options) -> None:
    result = run(options)
    graded = read(options.out)
    assert [line["id"] for line in graded] == [line["id"] for line in ROWS]
    assert [line["correct"] for line in graded] == [True, False, True, False, None, False]
    assert [line["prediction"] for line in graded] == ["2", "3", "2", "old", None, None]
    assert graded[0]["note"] == {"kept": [1]}
    assert result.counts == {
        "rollouts": 6,
        "graded": 4,
        "right": 2,
        "wrong": 3,
        "kept": 1,
        "without_answer": 1,
        "no_prediction": 1,
    }
    assert "2 with a verdict" not in result.to_text()
    assert "5 with a verdict, 40.0% right" in result.to_text()


def test_verdicts_that_are_there_are_replaced_only_when_asked(options: Options) -> None:
    run(replace(options, regrade=True))
    graded = read(options.out)
    assert (graded[3]["correct"], graded[3]["prediction"]) == (True, "2")


def test_predictions_are_filled_in_where_only_verdicts_are(options: Options) -> None:
    rows = [
        row("a0", "A: 2", correct=True),
        row("a1", "A: 2.0", correct=False),
        row("a2", "A: 3", correct=False, prediction="kept"),
        row("a3", "no idea", correct=False),
        row("a4", "A: 5", correct=True, answer=None),
    ]
    result = run(replace(options, rollouts=write(options.rollouts, rows)))
    graded = read(options.out)
    assert [line["correct"] for line in graded] == [line["correct"] for line in rows]
    assert [line["prediction"] for line in graded] == ["2", "2", "kept", None, None]
    assert result.counts == {"rollouts": 5, "right": 2, "wrong": 3, "kept": 5, "filled": 2}
    assert "2 of them had no prediction and got one" in result.to_text()


def test_answers_that_cannot_be_read_are_counted_and_say_so(options: Options) -> None:
    rows = [row("a0", r"\boxed{2 ?}"), row("a1", r"\boxed{2}"), row("b0", "none", answer="3")]
    result = run(replace(options, rollouts=write(options.rollouts, rows), grader="math"))
    assert result.counts["unread"] == 1
    assert read(options.out)[0][grade.FAILURE_FIELD] == "unread: 2 ?"
    assert "1 was wrong because its answer" in result.to_text()
    assert "1 states no answer" in result.to_text()


def test_the_manifest_says_what_was_done(options: Options) -> None:
    result = run(replace(options, tolerance=0.5))
    manifest = read_manifest(options.out)
    assert manifest is not None
    assert manifest["command"] == "grade"
    assert manifest["settings"]["tolerance"] == 0.5
    assert manifest["counts"] == result.counts
    assert list(manifest["inputs"]) == [str(options.rollouts)]


def test_the_same_work_is_not_done_again(options: Options) -> None:
    first = run(options)
    again = run(options)
    assert again.already_done
    assert again.counts == first.counts
    with pytest.raises(UserError, match="already exists"):
        run(replace(options, tolerance=0.5))
    run(replace(options, tolerance=0.5, overwrite=True))


class _StopError(Exception):
    pass


class _FailingGrader(Grader):
    """Grades by comparing, stops at the n-th item, and keeps what it was given to remember."""

    name = "failing"
    remembered: list[tuple[str, str]]

    def __init__(self, stop_at: int | None) -> None:
        self._left = stop_at
        self.remembered = []

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def grade_all(self, items: Any) -> Iterator[Grade]:
        for item in items:
            assert isinstance(item, GradingItem)
            if self._left == 0:
                raise _StopError
            self._left = None if self._left is None else self._left - 1
            correct = item.response == item.answer
            yield Grade(correct, item.response, "match" if correct else "timeout")

    def remember(self, group: str, prediction: str) -> None:
        self.remembered.append((group, prediction))


@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_run_that_was_stopped_goes_on(
    options: Options, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr("stepcredit.grading.options.make_grader", lambda *_, **__: _FailingGrader(None))
    whole = run(options)
    expected = options.out.read_bytes()
    options = replace(options, out=options.out.with_name("resumed.jsonl"))
    monkeypatch.setattr("stepcredit.grading.options.make_grader", lambda *_, **__: _FailingGrader(stop_at))
    with pytest.raises(_StopError):
        run(options)
    assert not options.out.exists()
    with open(f"{options.out}.partial", "ab") as partial:
        partial.write(b'{"id": "torn')
    second = _FailingGrader(None)
    monkeypatch.setattr("stepcredit.grading.options.make_grader", lambda *_, **__: second)
    resumed = run(options)
    assert options.out.read_bytes() == expected
    assert resumed.counts == whole.counts
    assert resumed.counts["timeout"] == 4
    assert len(second.remembered) == min(stop_at, 3) + (stop_at == 3)


def test_failures_are_recorded_with_their_reason(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepcredit.grading.options.make_grader", lambda *_, **__: _FailingGrader(None))
    run(options)
    assert read(options.out)[0][grade.FAILURE_FIELD] == "timeout"
    again = replace(options, rollouts=options.out, out=options.out.with_name("again.jsonl"), regrade=True)
    monkeypatch.undo()
    run(again)
    assert grade.FAILURE_FIELD not in read(again.out)[0]


def test_formats_of_other_tools_are_graded_too(options: Options) -> None:
    rows = [
        {"idx": 0, "prompt": "1+1=", "response": f"A: {total}", "reference": 2, "extracted_output": None}
        for total in (2, 3)
    ]
    write(options.rollouts, rows)
    run(replace(options, format="implicitprm-bon"))
    assert [(line["id"], line["correct"]) for line in read(options.out)] == [("0/0", True), ("0/1", False)]


@pytest.mark.parametrize("extension", ["jsonl.gz", "parquet", "csv"])
def test_the_extension_says_how_to_write(options: Options, extension: str) -> None:
    from stepcredit.data import read_rollouts

    run(options)
    other = replace(options, out=options.out.with_name(f"graded.{extension}"))
    run(other)
    verdicts = [(rollout.id, rollout.correct, rollout.prediction) for rollout in read_rollouts(options.out)]
    written = [(rollout.id, rollout.correct, rollout.prediction) for rollout in read_rollouts(other.out)]
    assert written == verdicts


def test_malformed_rows_are_skipped_and_counted_on_request(options: Options) -> None:
    with open(options.rollouts, "a", encoding="utf-8") as handle:
        handle.write('{"id": "c0"\n')
    with pytest.raises(DataError, match=r"rollouts\.jsonl:7: not valid JSON"):
        run(options)
    assert not options.out.exists()
    result = run(replace(options, skip_invalid=True))
    assert result.counts["skipped"] == 1
    assert "1 malformed row skipped" in result.to_text()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there are no rollouts in it"),
        ([row("a0", "A: 2", answer=None)], "no rollout has a reference answer"),
        ([row("a0", "A: 2"), row("a0", "A: 2")], "the id 'a0' appears twice"),
        ([row("a0", "A: 2", answer="many")], "'many' is not a number"),
    ],
)
def test_input_that_cannot_be_graded_leaves_no_output(
    options: Options, rows: list[dict[str, Any]], message: str
) -> None:
    write(options.rollouts, rows)
    with pytest.raises(DataError, match=message):
        run(options)
    assert not options.out.exists()


def test_mistakes_in_the_call_are_errors(options: Options) -> None:
    with pytest.raises(DataError, match="no such file"):
        run(replace(options, rollouts=options.rollouts.with_name("none.jsonl")))
    with pytest.raises(UserError, match="is the input itself"):
        run(replace(options, out=options.rollouts, overwrite=True))
    with pytest.raises(UserError, match="there is no grader"):
        run(replace(options, grader="maths"))
    folder = options.out.with_name("folder.jsonl")
    folder.mkdir()
    with pytest.raises(UserError, match=r"folder\.jsonl: is a folder"):
        run(replace(options, out=folder, overwrite=True, grader="python:no_such_module:function"))
    with pytest.raises(UserError, match="extension is not known"):
        run(replace(options, out=options.out.with_suffix(".txt")))


def test_an_answer_inside_the_thinking_only_is_none_and_counted(options: Options) -> None:
    thought = "<think>\nso \\boxed{2}\n</think>\n\n"
    rows = [row("a0", f"{thought}I am done."), row("a1", f"{thought}A: 2"), row("a2", "<think>\n\\boxed{2}")]
    write(options.rollouts, [*rows, row("a3", "no idea")])
    result = run(options)
    assert [line["correct"] for line in read(options.out)] == [False, True, False, False]
    assert [line["prediction"] for line in read(options.out)] == [None, "2", None, None]
    assert result.counts["no_prediction"] == 3
    assert result.counts["only_in_thinking"] == 2
    assert "2 of these state one only inside their thinking, which does not count" in result.to_text()


def test_the_answer_of_several_turns_is_in_the_last(options: Options) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
    turns = [
        {"role": "assistant", "content": "A: 3", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "A: 2"},
    ]
    write(options.rollouts, [row("a0", turns), row("a1", turns[:2])])  # type: ignore[arg-type]
    run(options)
    first, second = read(options.out)
    assert (first["correct"], second["correct"], second["prediction"]) == (True, False, None)
    assert first["response"] == turns
