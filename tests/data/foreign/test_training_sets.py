from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepcredit.data import named_format, read_rollouts_as
from stepcredit.errors import DataError
from stepcredit.types import Rollout, StepLabel

Row = dict[str, Any]
USER = {"role": "user", "content": "1+1="}


def read(tmp_path: Path, name: str, *rows: Row) -> list[Rollout]:
    path = tmp_path / "source.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(read_rollouts_as(path, name))


def written(name: str, rollouts: list[Rollout]) -> tuple[list[Row], Counter[str]]:
    form, lost = named_format(name, to_write=True), Counter[str]()
    assert form.write is not None
    return list(form.write(rollouts, lost)), +lost


def test_ultrainteract_has_a_rollout_a_completion_and_cuts_surplus_verdicts(tmp_path: Path) -> None:
    first, second = read(
        tmp_path,
        "ultrainteract",
        {"dataset": "d", "prompt": "q", "completions": ["x", "y"], "correctness": [True, 0, 1], "id": 5},
    )
    assert (first.id, first.index, first.correct, first.response) == ("0/0", 0, True, "x")
    assert (second.id, second.index, second.correct, second.response) == ("0/1", 1, False, "y")
    assert first.prompt_id == second.prompt_id
    assert first.extras == {"dataset": "d", "source_id": 5}


@pytest.mark.parametrize("correctness", [[True], [True, None], "yes", [True, 0.5]])
def test_ultrainteract_needs_a_verdict_for_each_completion(tmp_path: Path, correctness: Any) -> None:
    row = {"prompt": "q", "completions": ["x", "y"], "correctness": correctness}
    with pytest.raises(DataError, match=r"source\.jsonl:1: field 'correctness' must be"):
        read(tmp_path, "ultrainteract", row)


@pytest.mark.parametrize(
    ("prompt", "completions"),
    [("1+1=", ("2", "3")), ([USER], tuple([{"role": "assistant", "content": text}] for text in "23"))],
)
def test_trl_preference_comes_back_as_it_was(
    tmp_path: Path, prompt: Any, completions: tuple[Any, Any]
) -> None:
    rows = [{"prompt": prompt, "chosen": completions[0], "rejected": completions[1], "source": "s"}]
    rollouts = read(tmp_path, "trl-preference", *rows)
    assert [(rollout.response, rollout.correct) for rollout in rollouts] == [("2", True), ("3", False)]
    assert written("trl-preference", rollouts)[0] == rows


@pytest.mark.parametrize("prompt", ["1+1=", [USER]])
def test_trl_preference_takes_sides_that_repeat_the_prompt(tmp_path: Path, prompt: Any) -> None:
    turns = [[USER, {"role": "assistant", "content": text}] for text in "23"]
    row = {"prompt": prompt, "chosen": turns[0], "rejected": turns[1], "score_chosen": 8.5}
    first, second = read(tmp_path, "trl-preference", row)
    assert (first.prompt, first.response, second.response) == (prompt, "2", "3")
    assert first.extras == {"score_chosen": 8.5}


FEEDBACK: Row = {
    "source": "sharegpt",
    "instruction": "1+1=",
    "models": ["small", "large"],
    "completions": [
        {"model": "small", "response": "3", "overall_score": 2.0, "annotations": {"honesty": [1]}},
        {"model": "large", "response": "2", "overall_score": 9.0, "correct": 1},
    ],
}


def test_ultrafeedback_has_a_rollout_a_completion_and_keeps_its_ratings(tmp_path: Path) -> None:
    first, second = read(tmp_path, "ultrafeedback", FEEDBACK)
    assert (first.id, first.index, first.policy, first.response, first.correct) == (
        "0/0",
        0,
        "small",
        "3",
        None,
    )
    assert (second.id, second.index, second.policy, second.response) == ("0/1", 1, "large", "2")
    assert second.correct is True
    assert first.prompt_id == second.prompt_id
    assert first.extras == {"source": "sharegpt", "overall_score": 2.0, "annotations": {"honesty": [1]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completions": []}, "field 'completions' must be a list of objects with response"),
        ({"completions": ["2"]}, r"field 'completions\[0\]' must be an object with response"),
        ({"completions": [{"model": "m"}]}, r"field 'completions\[0\].response' is missing"),
        ({"instruction": 5}, "field 'instruction' must be a string or a list"),
    ],
)
def test_ultrafeedback_needs_responses(tmp_path: Path, change: Row, message: str) -> None:
    with pytest.raises(DataError, match=rf"source\.jsonl:1: {message}"):
        read(tmp_path, "ultrafeedback", {**FEEDBACK, **change})


def test_trl_preference_finds_a_prompt_that_is_inside_both_sides(tmp_path: Path) -> None:
    first, second = read(
        tmp_path, "trl-preference", {"chosen": "What is 1+1? It is 2", "rejected": "What is 1+1? It is 3"}
    )
    assert (first.prompt, first.response, second.response) == ("What is 1+1? It is ", "2", "3")
    turns = [[USER, {"role": "assistant", "content": text}] for text in "23"]
    first, second = read(tmp_path, "trl-preference", {"chosen": turns[0], "rejected": turns[1]})
    assert (first.prompt, first.response, second.response) == ([USER], "2", "3")
    with pytest.raises(DataError, match="share no start"):
        read(tmp_path, "trl-preference", {"chosen": "a", "rejected": "b"})


def rollout(name: str, correct: bool | None, prompt_id: str = "p", **fields: Any) -> Rollout:
    return Rollout(id=name, prompt_id=prompt_id, prompt="q", response=name, correct=correct, **fields)


def test_pairs_use_each_response_once_and_count_the_rest() -> None:
    rollouts = [
        rollout("r1", True),
        rollout("w1", False),
        rollout("r2", True),
        rollout("ungraded", None),
        rollout("r3", True, "other"),
        rollout("w3", False, "third"),
    ]
    rows, lost = written("trl-preference", rollouts)
    assert rows == [{"prompt": "q", "chosen": "r1", "rejected": "w1"}]
    assert lost["responses without a partner"] == 4


def test_a_pair_has_the_extra_fields_of_its_chosen_response_and_counts_the_others() -> None:
    right, wrong_one = rollout("r1", True), rollout("w1", False)
    shared = {"task": "sums"}
    pair = [replace(right, extras=shared), replace(wrong_one, extras=shared)]
    rows, lost = written("trl-preference", pair)
    assert rows[0]["task"] == "sums"
    assert not lost["extra fields of rejected responses"]
    rows, lost = written("trl-preference", [pair[0], replace(pair[1], extras={**shared, "note": "slip"})])
    assert "note" not in rows[0]
    assert lost["extra fields of rejected responses"] == 1


def test_a_pair_has_two_texts_and_what_is_left_without_another_text_is_counted() -> None:
    def response(name: str, correct: bool, text: str) -> Rollout:
        return replace(rollout(name, correct), response=text)

    rollouts = [response("a", True, "x"), response("b", True, "x")]
    rollouts += [response("c", False, "x"), response("d", False, "y"), response("e", False, "x")]
    rows, lost = written("trl-preference", rollouts)
    assert rows == [{"prompt": "q", "chosen": "x", "rejected": "y"}]
    assert lost["responses whose partner would be the same text"] == 2
    assert lost["responses without a partner"] == 1


@pytest.mark.parametrize("label", [True, False])
def test_trl_unpaired_comes_back_as_it_was(tmp_path: Path, label: bool) -> None:
    rows = [{"prompt": "q", "completion": "x", "label": label, "score": 0.5}]
    assert written("trl-unpaired", read(tmp_path, "trl-unpaired", *rows))[0] == rows


def test_trl_stepwise_comes_back_as_it_was(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "completions": ["one", "two\n", "", "four"], "labels": [True, False, True, False]}
    ]
    (rollout,) = read(tmp_path, "trl-stepwise", *rows)
    assert rollout.response == "one\ntwo\n\n\nfour"
    assert rollout.step_labels == (
        StepLabel(4, 1.0),
        StepLabel(9, 0.0),
        StepLabel(10, 1.0),
        StepLabel(14, 0.0),
    )
    assert written("trl-stepwise", [rollout]) == (rows, Counter(id=1, prompt_id=1))


def test_trl_stepwise_says_what_its_labels_cannot_hold() -> None:
    labels = (StepLabel(2, 1.0), StepLabel(4, 0.6))
    rollouts = [
        Rollout(id="a", prompt_id="p", prompt="q", response="a.b\nrest", step_labels=labels),
        rollout("b", True),
    ]
    rows, lost = written("trl-stepwise", rollouts)
    assert rows == [{"prompt": "q", "completions": ["a.", "b\n"], "labels": [True, True]}]
    assert lost["unlabelled ends of responses"] == 1
    assert lost["labels between 0 and 1"] == 1
    assert lost["separators other than a line end"] == 1
    assert lost["responses without step labels"] == 1


def test_openrlhf_ce_comes_back_as_it_was(tmp_path: Path) -> None:
    turns = [USER, {"role": "assistant", "content": "2"}]
    rows = [{"response": turns, "id": "7", "dataset": "d", "label": 1}]
    (rollout,) = read(tmp_path, "openrlhf-ce", *rows)
    assert (rollout.id, rollout.prompt, rollout.response, rollout.correct) == ("7", "1+1=", "2", True)
    assert written("openrlhf-ce", [rollout])[0] == rows


def test_openrlhf_ce_has_one_turn_of_the_user_and_a_verdict() -> None:
    system = [{"role": "system", "content": "s"}, USER]
    rollouts = [
        Rollout(id="a", prompt_id="p", prompt=system, response="2", correct=True),  # type: ignore[arg-type]
        rollout("b", None),
    ]
    rows, lost = written("openrlhf-ce", rollouts)
    assert rows == []
    assert lost == {"responses to conversations of several turns": 1, "responses without a verdict": 1}


def test_an_extra_that_bears_a_fields_name_is_lost_and_said_so() -> None:
    rows, lost = written("trl-unpaired", [rollout("a", True, extras={"label": -1, "kept": 2})])
    assert rows == [{"prompt": "q", "completion": "a", "label": True, "kept": 2}]
    assert lost["extra field 'label'"] == 1


def test_repeated_ids_are_followed_by_the_rows_position(tmp_path: Path) -> None:
    turns = [USER, {"role": "assistant", "content": "2"}]
    rows = [{"response": turns, "id": name, "dataset": "d", "label": 1} for name in ("x", "y", "x")]
    assert [rollout.id for rollout in read(tmp_path, "openrlhf-ce", *rows)] == ["x/0", "y", "x/2"]


def test_a_completion_with_tools_is_read_and_written_as_turns(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "calc", "arguments": {"e": "1+1"}}}
    turns = [
        {"role": "assistant", "content": "let me see", "tool_calls": [call]},
        {"role": "tool", "name": "calc", "content": "2"},
        {"role": "assistant", "content": "2"},
    ]
    unpaired = [{"prompt": [USER], "completion": turns, "label": True}]
    (rollout,) = read(tmp_path, "trl-unpaired", *unpaired)
    assert rollout.response == "let me see\n\n2"
    assert list(rollout.turns or ()) == turns
    assert written("trl-unpaired", [rollout])[0] == unpaired
    preference = [{"prompt": [USER], "chosen": turns, "rejected": turns[:1]}]
    assert written("trl-preference", read(tmp_path, "trl-preference", *preference))[0] == preference
    rows, lost = written("openrlhf-ce", [rollout])
    assert (rows, lost["responses to conversations of several turns"]) == ([], 1)
