from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcredit.data import (
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
SCORE = {
    "id": "a",
    "prompt_id": "p",
    "reward": 0.5,
    "steps": [{"index": 0, "text": "ab", "start": 0, "end": 2, "reward": 0.5, "value": 0.5}],
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
        ({"id": 7}, "field 'id' must be a string that is not empty, not 7"),
        ({"prompt_id": None}, "field 'prompt_id'"),
        ({"prompt": ""}, "field 'prompt' must be a string or a list"),
        ({"prompt": []}, "field 'prompt' must be a string or a list"),
        ({"prompt": ["hello"]}, "field 'prompt[0]' must be an object with role and content"),
        ({"prompt": [{"role": "user"}]}, "field 'prompt[0].content' is missing"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "ends with an assistant's turn"),
        ({"response": None}, "field 'response' must be a string, not null"),
        ({"index": -1}, "field 'index' must be a whole number"),
        ({"index": True}, "field 'index' must be a whole number"),
        ({"index": 1.0}, "field 'index' must be a whole number"),
        ({"answer": 18}, "field 'answer' must be a string or null, not 18"),
        ({"correct": "yes"}, "field 'correct' must be true, false or null, not \"yes\""),
        ({"correct": 1}, "field 'correct' must be true, false or null, not 1"),
        ({"finish_reason": "eos"}, 'field \'finish_reason\' must be "stop", "length" or null'),
        ({"sampling": "greedy"}, "field 'sampling' must be an object or null"),
        ({"response_token_ids": [1, 2]}, "needs 'tokenizer'"),
        ({"response_token_ids": [1, -2], "tokenizer": "t"}, "field 'response_token_ids' must be a list"),
        ({"step_labels": [{"end": 99, "label": 1}]}, "field 'step_labels[0].end' must be at most"),
        ({"step_labels": [{"end": 3, "label": 1}, {"end": 2, "label": 1}]}, "no smaller than the one before"),
        ({"step_labels": [{"end": 3, "label": 2}]}, "field 'step_labels[0].label' must be between 0 and 1"),
        ({"step_labels": [{"end": 3, "label": float("nan")}]}, "must be a finite number"),
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
        ({"steps": [{**SCORE["steps"][0], "end": -1}]}, "field 'steps[0].end'"),  # type: ignore[index]
        ({"steps": [{**SCORE["steps"][0], "start": 3}]}, "no smaller than its start of 3"),  # type: ignore[index]
        ({"steps": [{**SCORE["steps"][0], "value": "x"}]}, "field 'steps[0].value'"),  # type: ignore[index]
        ({"aggregates": {"min": float("nan")}}, "field 'aggregates.min' must be a finite number"),
        ({"num_tokens": 1.5}, "field 'num_tokens' must be a whole number"),
        ({"token_rewards": [0.1, float("nan")]}, "field 'token_rewards' must be a list of finite numbers"),
    ],
)
def test_a_wrong_field_of_a_score_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        score_from_json({**SCORE, **change}, "scores.jsonl:2")
    assert str(caught.value).startswith("scores.jsonl:2: ")
    assert message in str(caught.value)
