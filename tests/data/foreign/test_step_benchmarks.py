from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepcredit.data import read_rollouts_as
from stepcredit.data.foreign import math_shepherd
from stepcredit.errors import DataError
from stepcredit.types import Rollout, StepLabel

SHARED = Path(__file__).parents[4] / "shared"
Row = dict[str, Any]


def read(tmp_path: Path, name: str, *rows: Row, suffix: str = ".jsonl") -> list[Rollout]:
    path = tmp_path / f"source{suffix}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(json.dumps(rows) if suffix == ".json" else lines, encoding="utf-8")
    return list(read_rollouts_as(path, name))


def labels(rollout: Rollout) -> list[float]:
    assert rollout.step_labels is not None
    return [label.label for label in rollout.step_labels]


def cut(rollout: Rollout) -> list[str]:
    assert rollout.step_labels is not None
    ends = [label.end for label in rollout.step_labels]
    return [rollout.response[start:end] for start, end in zip([0, *ends], ends, strict=False)]


PROCESSBENCH = {
    "id": "gsm-1",
    "generator": "m",
    "problem": "q",
    "steps": ["one\n\nhalf", "two", "three"],
    "final_answer_correct": False,
    "label": 1,
}


def test_processbench_labels_steps_up_to_the_first_wrong_one(tmp_path: Path) -> None:
    (rollout,) = read(tmp_path, "processbench", PROCESSBENCH, suffix=".json")
    assert (rollout.id, rollout.policy, rollout.prompt, rollout.correct) == ("gsm-1", "m", "q", False)
    assert cut(rollout) == ["one\n\nhalf\n\n", "two\n\n"]
    assert labels(rollout) == [1.0, 0.0]
    assert rollout.response.endswith("three")
    assert rollout.extras == {"steps": PROCESSBENCH["steps"], "label": 1}
    (right,) = read(tmp_path, "processbench", {**PROCESSBENCH, "label": -1})
    assert labels(right) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 3}, "field 'label' must be -1 or the index of a step, at most 2, not 3"),
        ({"label": None}, "field 'label'"),
        ({"label": True}, "field 'label'"),
        ({"steps": []}, "field 'steps' must be a list of strings"),
        ({"steps": [1]}, "field 'steps' must be a list of strings"),
        ({"problem": ""}, "field 'problem'"),
        ({"final_answer_correct": "no"}, "field 'final_answer_correct'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: Row, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "processbench", {**PROCESSBENCH, **change})
    assert "source.jsonl:1: " in str(caught.value)
    assert message in str(caught.value)


def test_prmbench_labels_every_step_of_the_modified_process(tmp_path: Path) -> None:
    row = {
        "idx": "x_1",
        "original_question": "q0",
        "modified_question": "q",
        "original_process": ["a", "b"],
        "modified_process": ["a", "B", "c"],
        "modified_steps": [2],
        "error_steps": [2, 9],
        "classification": "confidence",
        "reason": "r",
    }
    (rollout,) = read(tmp_path, "prmbench", row)
    assert (rollout.id, rollout.prompt, rollout.response) == ("x_1", "q", "a\n\nB\n\nc")
    assert labels(rollout) == [1.0, 0.0, 1.0]
    assert rollout.extras["classification"] == "confidence"
    assert rollout.extras["steps"] == ["a", "B", "c"]
    with pytest.raises(DataError, match="counted from 1"):
        read(tmp_path, "prmbench", {**row, "error_steps": [0]})


def test_a_repeated_idx_is_followed_by_the_rows_position(tmp_path: Path) -> None:
    row = {"modified_question": "q", "modified_process": ["a"], "error_steps": []}
    rollouts = read(tmp_path, "prmbench", *({**row, "idx": name} for name in ("x", "x", "y")))
    assert [rollout.id for rollout in rollouts] == ["x/0", "x/1", "y"]


@pytest.mark.parametrize(("mistake", "expected"), [(None, [1.0, 1.0]), (0, [0.0]), (1, [1.0, 0.0])])
def test_bigbench_mistake(tmp_path: Path, mistake: int | None, expected: list[float]) -> None:
    row = {"input": "q", "steps": ["a", "b"], "target": "3", "answer": "4", "mistake_index": mistake}
    (rollout,) = read(tmp_path, "bigbench-mistake", row)
    assert labels(rollout) == expected
    assert (rollout.answer, rollout.prediction, rollout.correct, rollout.id) == ("3", "4", False, "0")


def test_prm800k_follows_the_chosen_path(tmp_path: Path) -> None:
    def completion(text: str, rating: int | None) -> Row:
        return {"text": text, "rating": rating}

    steps: list[Row] = [
        {
            "completions": [completion("a", 1), completion("z", -1)],
            "human_completion": None,
            "chosen_completion": 0,
        },
        {
            "completions": [completion("y", -1)],
            "human_completion": completion("b", None),
            "chosen_completion": None,
        },
        {"completions": [completion("c", 0)], "human_completion": None, "chosen_completion": 0},
        {"completions": [completion("d", -1)], "human_completion": None, "chosen_completion": None},
        {"completions": [completion("never", 1)], "human_completion": None, "chosen_completion": 0},
    ]
    question = {"problem": "q", "ground_truth_answer": "7"}
    row = {
        "question": question,
        "label": {"steps": steps[:4], "finish_reason": "found_error"},
        "labeler": "l",
    }
    (rollout,) = read(tmp_path, "prm800k", row)
    assert rollout.response == "a\n\nb\n\nc\n\nd"
    assert labels(rollout) == [1.0, 1.0, 0.5, 0.0]
    assert (rollout.answer, rollout.finish_reason, rollout.correct) == ("7", "length", None)
    assert rollout.extras == {"labeler": "l", "steps": ["a", "b", "c", "d"]}
    solved = {"question": question, "label": {"steps": steps[:1], "finish_reason": "solution"}}
    assert read(tmp_path, "prm800k", solved)[0].finish_reason == "stop"
    broken = {"question": question, "label": {"steps": [{**steps[0], "chosen_completion": 5}]}}
    with pytest.raises(DataError, match=r"'label.steps\[0\].chosen_completion' is 5"):
        read(tmp_path, "prm800k", broken)


SHEPHERD = {
    "input": "How many? Step 1: Take 3. ки\nStep 2: Add 4. ки\nStep 3: The answer is: 7 ки",
    "label": "How many? Step 1: Take 3. +\nStep 2: Add 4. -\nStep 3: The answer is: 7 +",
    "task": "GSM8K",
}


def test_math_shepherd_takes_its_labels_from_the_tags(tmp_path: Path) -> None:
    (rollout,) = read(tmp_path, "math-shepherd", SHEPHERD)
    assert (rollout.prompt, rollout.extras["task"]) == ("How many?", "GSM8K")
    assert cut(rollout) == ["Step 1: Take 3.\n", "Step 2: Add 4.\n", "Step 3: The answer is: 7"]
    assert labels(rollout) == [1.0, 0.0, 1.0]
    assert rollout.correct is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": "no steps ки", "label": "no steps +"}, "has no 'Step 1:'"),
        ({"label": SHEPHERD["label"].replace("+", "?", 1)}, "does not follow 'input' up to tag 1"),
        ({"label": SHEPHERD["label"].replace("Add 4", "Add 5")}, "does not follow 'input' up to tag 2"),
        ({"input": "Step 1: x", "label": "Step 1: x"}, "has no tag"),
        ({"input": "Step 1: x ки", "label": "Step 1: x +"}, "has no question"),
    ],
)
def test_math_shepherd_rows_must_agree(tmp_path: Path, change: Row, message: str) -> None:
    with pytest.raises(DataError, match=message.replace("?", r"\?")):
        read(tmp_path, "math-shepherd", {**SHEPHERD, **change})


def test_best_of_n_rows_are_samples_of_their_idx(tmp_path: Path) -> None:
    rows = [
        {
            "idx": idx,
            "prompt": "q",
            "response": "r",
            "extracted_output": 7,
            "reference": "8",
            "correctness": False,
        }
        for idx in (0, 0, 1)
    ]
    rollouts = read(tmp_path, "implicitprm-bon", *rows, suffix=".json")
    assert [(rollout.id, rollout.prompt_id, rollout.index) for rollout in rollouts] == [
        ("0/0", "0", 0),
        ("0/1", "0", 1),
        ("1", "1", 0),
    ]
    assert (rollouts[0].prediction, rollouts[0].answer, rollouts[0].correct) == ("7", "8", False)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared data")
@pytest.mark.parametrize(
    ("file", "name", "count"),
    [
        ("data/prmbench_circular.jsonl", "prmbench", 90),
        ("data/prmbench_confidence.jsonl", "prmbench", 90),
        ("data/prmbench_counterfactual.jsonl", "prmbench", 90),
        ("data/bigbench_mistake_multistep_arithmetic.jsonl", "bigbench-mistake", 300),
        ("golden/chatml/processbench_items.json", "processbench", 20),
        ("golden/llama3/bon_items.json", "implicitprm-bon", 80),
    ],
)
def test_real_files_are_read_whole(file: str, name: str, count: int) -> None:
    rollouts = list(read_rollouts_as(SHARED / file, name))
    assert len(rollouts) == len({rollout.id for rollout in rollouts}) == count
    for rollout in rollouts:
        steps = rollout.extras.get("steps")
        assert steps is None or rollout.response == "\n\n".join(steps)
        assert rollout.step_labels is None or isinstance(rollout.step_labels[0], StepLabel)


def test_math_shepherd_comes_back_as_it_was(tmp_path: Path) -> None:
    rollouts = read(tmp_path, "math-shepherd", SHEPHERD)
    lost = Counter[str]()
    (row,) = math_shepherd.write_math_shepherd(rollouts, lost)
    assert +lost == {}
    (again,) = read(tmp_path, "math-shepherd", row)
    assert (again.prompt, again.response, again.step_labels) == (
        rollouts[0].prompt,
        rollouts[0].response,
        rollouts[0].step_labels,
    )


def test_steps_become_numbered_for_math_shepherd_and_what_is_lost_is_counted() -> None:
    labelled = Rollout(
        id="a",
        prompt_id="p",
        prompt="What is 1+1+1?",
        response="1+1=2\n2+1=4\n#4",
        step_labels=(StepLabel(6, 1.0), StepLabel(12, 0.25)),
        extras={"task": "sums"},
    )
    others = [
        replace(labelled, step_labels=None),
        replace(labelled, prompt=[{"role": "user", "content": "q"}]),
        replace(labelled, response="ки" * 9),
    ]
    lost = Counter[str]()
    (row,) = math_shepherd.write_math_shepherd([labelled, *others], lost)
    assert row == {
        "task": "sums",
        "input": "What is 1+1+1? Step 1: 1+1=2 ки\nStep 2: 2+1=4 ки",
        "label": "What is 1+1+1? Step 1: 1+1=2 +\nStep 2: 2+1=4 -",
    }
    assert +lost == {
        "texts of steps that had no number": 1,
        "unlabelled ends of responses": 1,
        "labels between 0 and 1": 1,
        "responses without step labels": 1,
        "responses to conversations": 1,
        "responses that hold the tag": 1,
    }


@pytest.mark.parametrize("rating", [[1], "1", True, 2, {}])
def test_a_prm800k_rating_is_a_number_of_three(tmp_path: Path, rating: object) -> None:
    step = {"completions": [{"text": "x", "rating": rating}], "chosen_completion": 0}
    row = {"question": {"problem": "q"}, "label": {"steps": [step], "finish_reason": "solution"}}
    with pytest.raises(DataError, match=r"a rating of .* must be -1, 0, 1 or null"):
        read(tmp_path, "prm800k", row)


def test_what_a_math_shepherd_row_would_say_differently_is_counted() -> None:
    labels = (StepLabel(2, 1.0), StepLabel(3, 1.0))
    rollout = Rollout(id="a", prompt_id="p", prompt="q", response="x\ny", correct=False, step_labels=labels)
    others = [
        replace(rollout, correct=True, answer="5"),
        replace(rollout, correct=None, prompt="As in Step 1: add."),
    ]
    lost = Counter[str]()
    assert len(list(math_shepherd.write_math_shepherd([rollout, *others], lost))) == 2
    assert +lost == {
        "texts of steps that had no number": 2,
        "verdicts that the last label does not give": 1,
        "responses to prompts that hold 'Step 1:'": 1,
        "answer": 1,
    }
