from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.data import (
    is_score,
    prompt_from_json,
    prompt_to_json,
    rollout_from_json,
    rollout_to_json,
    score_from_json,
    score_to_json,
)
from stepcredit.errors import DataError
from stepcredit.types import Prompt, ResponseScore, Rollout, StepLabel, StepScore

ROLLOUT = {"id": "a", "prompt_id": "p", "prompt": "1+1=", "response": "1+1=2\n#2"}
STEP = {"index": 0, "text": "ab", "start": 0, "end": 2, "reward": 0.5, "value": 0.5}
SCORE = {
    "id": "a",
    "prompt_id": "p",
    "reward": 0.5,
    "steps": [STEP],
    "aggregates": {"min": 0.5},
    "num_tokens": 2,
    "scorer": "implicit",
}


def test_a_rollout_needs_only_ids_prompt_and_response() -> None:
    rollout = rollout_from_json(ROLLOUT)
    assert rollout == Rollout(id="a", prompt_id="p", prompt="1+1=", response="1+1=2\n#2")
    assert rollout.correct is None
    assert rollout.index == 0


def test_unknown_fields_are_extras_and_come_back_untouched() -> None:
    extras = {"source": {"nested": [1, None, "x"]}, "note": None}
    rollout = rollout_from_json({**ROLLOUT, **extras})
    assert rollout.extras == extras
    assert {name: rollout_to_json(rollout)[name] for name in extras} == extras
    prompt = prompt_from_json({"id": "p", "prompt": "1+1=", **extras})
    assert prompt_to_json(prompt) == {"id": "p", "prompt": "1+1=", **extras}


def test_an_extra_never_overwrites_a_field_of_the_record() -> None:
    rollout = Rollout(
        id="a", prompt_id="p", prompt="q", response="r", extras={"id": "other", "tokenizer": "t"}
    )
    row = rollout_to_json(rollout)
    assert row["id"] == "a"
    assert "tokenizer" not in row


def test_every_field_survives_the_way_out_and_in() -> None:
    rollout = Rollout(
        id="a",
        prompt_id="p",
        index=3,
        prompt=[{"role": "system", "content": "s"}, {"role": "user", "content": "u", "name": "n"}],
        response="x\ny",
        answer="2",
        correct=False,
        prediction="3",
        finish_reason="length",
        policy="mid",
        sampling={"temperature": 1.0, "seed": 7},
        response_token_ids=(5, 6),
        tokenizer="sha256:0",
        step_labels=(StepLabel(2, 1.0), StepLabel(3, 0.25)),
        extras={"e": 1},
    )
    assert rollout_from_json(rollout_to_json(rollout)) == rollout
    prompt = Prompt(id="p", prompt="q", answer="2", extras={"e": [1]})
    assert prompt_from_json(prompt_to_json(prompt)) == prompt
    score = ResponseScore(
        id="a",
        prompt_id="p",
        reward=-0.5,
        steps=(StepScore(0, "x\n", 0, 2, -1.0, -1.0), StepScore(1, "y", 2, 3, 0.5, -0.5)),
        aggregates={"min": -1.0},
        num_tokens=3,
        scorer="implicit",
        scored_text="x\ny",
        token_rewards=(-1.0, 0.25, 0.25),
        token_ends=(1, 2, 3),
    )
    assert score_from_json(score_to_json(score)) == score


@given(
    st.fixed_dictionaries(
        {"id": st.text(min_size=1), "prompt_id": st.text(min_size=1), "prompt": st.text(min_size=1)},
    ),
    st.text(),
    st.sampled_from([None, True, False]),
)
def test_any_text_survives(names: dict[str, str], response: str, correct: bool | None) -> None:
    row: dict[str, Any] = {**names, "response": response, "correct": correct}
    assert rollout_from_json(rollout_to_json(rollout_from_json(row))) == rollout_from_json(row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, "field 'id' must be a string that is not empty"),
        ({"id": 7.5}, "field 'id' must be a string that is not empty, or a whole number, not 7.5"),
        ({"id": True}, "field 'id' must be a string that is not empty, or a whole number, not true"),
        ({"prompt_id": None}, "field 'prompt_id'"),
        ({"prompt": ""}, "field 'prompt' must be a string or a list"),
        ({"prompt": []}, "field 'prompt' must be a string or a list"),
        ({"prompt": ["hello"]}, "field 'prompt[0]' must be an object with role and content"),
        ({"prompt": [{"role": "user"}]}, "field 'prompt[0].content' is missing"),
        ({"prompt": [{"role": "user", "content": None}]}, "field 'prompt[0].content' must be a string or a"),
        ({"prompt": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part that is not text"),
        ({"prompt": [{"role": "user", "content": "x", "tool_calls": "f"}]}, "must be a list of objects"),
        ({"response": [{"role": "tool", "content": "x"}]}, "field 'response' has no turn of the assistant"),
        (
            {
                "response": [{"role": "assistant", "content": "x"}, {"role": "tool", "content": "y"}],
                "response_token_ids": [1],
                "tokenizer": "t",
            },
            "field 'response_token_ids' belongs to a response that is one text",
        ),
        ({"response": None}, "field 'response' must be a string, not null"),
        ({"index": -1}, "field 'index' must be a whole number"),
        ({"index": True}, "field 'index' must be a whole number"),
        ({"index": 1.0}, "field 'index' must be a whole number"),
        ({"answer": [18]}, "field 'answer' must be a string, a number or null, not [18]"),
        ({"answer": True}, "field 'answer' must be a string, a number or null, not true"),
        ({"prediction": {}}, "field 'prediction' must be a string, a number or null, not {}"),
        ({"policy": []}, "field 'policy' must be a string, a number or null, not []"),
        ({"correct": "yes"}, "field 'correct' must be true, false (or 1, 0) or null, not \"yes\""),
        ({"correct": 2}, "field 'correct' must be true, false (or 1, 0) or null, not 2"),
        ({"correct": 10**400}, "field 'correct' must be true, false (or 1, 0) or null, not 1000"),
        ({"finish_reason": "over"}, 'field \'finish_reason\' must be "stop", "length" or null, not "over"'),
        ({"finish_reason": ["stop"]}, "field 'finish_reason' must be"),
        ({"index": 10**400}, "field 'index' must be a whole number from 0 to 2^53"),
        ({"sampling": "greedy"}, "field 'sampling' must be an object or null"),
        ({"response_token_ids": [1, 2]}, "needs 'tokenizer'"),
        ({"response_token_ids": [1, -2], "tokenizer": "t"}, "field 'response_token_ids' must be a list"),
        ({"step_labels": [{"end": 99, "label": 1}]}, "field 'step_labels[0].end' must be at most"),
        ({"step_labels": [{"end": 3, "label": 1}, {"end": 2, "label": 1}]}, "no smaller than the one before"),
        ({"step_labels": [{"end": 3, "label": 2}]}, "field 'step_labels[0].label' must be between 0 and 1"),
        ({"step_labels": [{"end": 3, "label": float("nan")}]}, "must be a finite number"),
        ({"step_labels": [{"end": 3, "label": 10**400}]}, "must be a finite number"),
        ({"step_labels": [{"end": 3, "label": True}]}, "must be a finite number"),
        ({"step_labels": [3]}, "field 'step_labels[0]' must be an object"),
    ],
)
def test_a_wrong_field_is_named_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        rollout_from_json({**ROLLOUT, **change}, "file.jsonl:7")
    assert str(caught.value).startswith("file.jsonl:7: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["id", "prompt_id", "prompt", "response"])
def test_a_missing_field_is_called_missing(field: str) -> None:
    row = {name: value for name, value in ROLLOUT.items() if name != field}
    with pytest.raises(DataError, match=rf"field '{field}' is missing"):
        rollout_from_json(row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": float("nan")}, "field 'reward' must be a finite number"),
        ({"reward": float("inf")}, "field 'reward' must be a finite number"),
        ({"reward": None}, "field 'reward' must be a finite number"),
        ({"steps": {}}, "field 'steps' must be a list"),
        ({"steps": [1]}, "field 'steps[0]' must be an object"),
        ({"steps": [{**STEP, "end": -1}]}, "field 'steps[0].end'"),
        ({"steps": [{**STEP, "start": 3}]}, "field 'steps[0].end' must be 5, its start of 3 and the 2"),
        ({"steps": [{**STEP, "value": "x"}]}, "field 'steps[0].value'"),
        ({"steps": [{**STEP, "text": "abc"}]}, "field 'steps[0].end' must be 3"),
        ({"steps": [{**STEP, "text": 3}]}, "field 'steps[0].text' must be a string"),
        ({"steps": [{**STEP, "index": 1}]}, "field 'steps[0].index' must be 0"),
        ({"steps": [STEP, {**STEP, "index": 1}]}, "field 'steps[1].start' must be no smaller than"),
        ({"steps": [{**STEP, "reward": True}]}, "field 'steps[0].reward' must be a finite number"),
        ({"steps": [{**STEP, "value": 1e101}]}, "field 'steps[0].value' must be a finite number"),
        ({"scored_text": "xy"}, "field 'steps[0].text' must be what 'scored_text' holds"),
        ({"scored_text": "a"}, "field 'steps[0].text' must be what 'scored_text' holds"),
        ({"scored_text": 5}, "field 'scored_text' must be a string"),
        ({"reward": True}, "field 'reward' must be a finite number between -1e100 and 1e100, not true"),
        ({"reward": 10**400}, "and 1e100, not 1000"),
        (
            {"reward": -1.1e100},
            "between -1e100 and 1e100, not -1.1e+100",
        ),
        ({"reward": "0.5"}, 'and 1e100, not "0.5"'),
        ({"aggregates": {"min": 10**101}}, "field 'aggregates.min' must be a finite number"),
        ({"aggregates": {"product": "1e101"}}, "field 'aggregates.product' must be a finite number"),
        ({"token_rewards": [0.1, 1e101], "token_ends": [1, 2]}, "a list of finite numbers between"),
        ({"aggregates": {"min": float("nan")}}, "field 'aggregates.min' must be a finite number"),
        ({"aggregates": {"min": False}}, "field 'aggregates.min' must be a finite number"),
        ({"aggregates": {"reward": 0.5}}, "an aggregate cannot be called 'reward'"),
        ({"aggregates": None}, "field 'aggregates' must be an object"),
        ({"scorer": 5}, "field 'scorer' must be a string"),
        ({"scorer": ""}, "field 'scorer' must be a string that is not empty"),
        ({"num_tokens": 1.5}, "field 'num_tokens' must be a whole number"),
        ({"num_tokens": -1}, "field 'num_tokens' must be a whole number"),
        ({"num_tokens": 10**30}, "field 'num_tokens' must be a whole number"),
        ({"num_tokens": True}, "field 'num_tokens' must be a whole number"),
        ({"token_rewards": [0.1, 0.2]}, "field 'token_ends' is missing"),
        (
            {"token_rewards": [0.1], "token_ends": [1, 2]},
            "'token_rewards' has length 1, but 'num_tokens' is 2",
        ),
        ({"token_rewards": [0.1, True], "token_ends": [1, 2]}, "a list of finite numbers"),
        ({"token_rewards": [0.1, 0.2], "token_ends": [2, 1]}, "a list of numbers that do not fall"),
        ({"token_rewards": [0.1, float("nan")]}, "field 'token_rewards' must be a list of finite numbers"),
    ],
)
def test_a_wrong_field_of_a_score_is_named(change: dict[str, Any], message: str) -> None:
    row = {**SCORE, **change}
    with pytest.raises(DataError) as caught:
        score_from_json(row, "scores.jsonl:2")
    assert str(caught.value).startswith("scores.jsonl:2: ")
    assert message in str(caught.value)
    assert not is_score(row)


def test_a_product_that_is_too_large_is_left_out() -> None:
    row = {**SCORE, "reward": 1e100, "aggregates": {"min": -1e100, "product": -1.1e100}}
    assert not is_score(row)
    score = score_from_json(row)
    assert (score.reward, score.aggregates) == (1e100, {"min": -1e100})


def test_the_quick_check_takes_what_the_exact_one_takes() -> None:
    steps = [STEP, {**STEP, "index": 1, "text": "c", "start": 4, "end": 5}]
    for row in (SCORE, {**SCORE, "steps": steps, "scored_text": "ab--c"}, {**SCORE, "steps": []}):
        assert is_score(row)
        assert score_to_json(score_from_json(row)) == row


@given(st.data())
def test_the_quick_check_takes_nothing_that_the_exact_one_refuses(data: st.DataObject) -> None:
    row = json.loads(json.dumps({**SCORE, "steps": [STEP, {**STEP, "index": 1, "start": 2, "end": 4}]}))
    holder = data.draw(st.sampled_from([row, row["aggregates"], *row["steps"]]))
    name = data.draw(st.sampled_from([*holder, "scored_text", "token_ends"]))
    holder[name] = data.draw(st.sampled_from([None, True, 0, 1, 2, -1, 2.0, 10**400, "", "abab", [], {}]))
    if is_score(row):
        score_from_json(row)


def test_an_id_that_is_a_number_is_text() -> None:
    rollout = rollout_from_json({**ROLLOUT, "id": 7, "prompt_id": 12.0, "answer": 0.5, "prediction": 7})
    assert (rollout.id, rollout.prompt_id, rollout.answer, rollout.prediction) == ("7", "12", "0.5", "7")
    assert prompt_from_json({"id": 0, "prompt": "q", "answer": 10**400}).answer == "1" + "0" * 400
    assert score_from_json({**SCORE, "id": 7}).id == "7"


@pytest.mark.parametrize(
    ("stated", "verdict"), [(1, True), (0, False), (1.0, True), (True, True), (None, None)]
)
def test_a_verdict_may_be_a_number(stated: object, verdict: bool | None) -> None:
    assert rollout_from_json({**ROLLOUT, "correct": stated}).correct is verdict


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ("eos", "stop"),
        ("stop_sequence", "stop"),
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("tool_calls", None),
        ("content_filter", None),
        ("abort", None),
    ],
)
def test_other_servers_reasons_for_an_end_are_known(stated: str, reason: str | None) -> None:
    rollout = rollout_from_json({**ROLLOUT, "finish_reason": stated})
    assert rollout.finish_reason == reason
    kept = {"source_finish_reason": stated} if reason is None else {}
    assert rollout.extras == kept


def test_a_row_with_a_position_needs_no_id() -> None:
    row = {"prompt": "1+1=", "response": "2"}
    first, again = (rollout_from_json(row, "row", position=3) for _ in range(2))
    assert first == again
    assert first.id.startswith("3-")
    moved, edited = rollout_from_json(row, "row", 4), rollout_from_json({**row, "response": "3"}, "row", 3)
    assert len({first.id, moved.id, edited.id}) == 3
    assert first.prompt_id == moved.prompt_id == edited.prompt_id
    assert rollout_from_json({**row, "id": "own"}, "row", 3).id == "own"
    assert prompt_from_json({"prompt": "q", "answer": 2}, "row", 0).id.startswith("0-")
