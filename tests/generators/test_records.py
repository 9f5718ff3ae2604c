from __future__ import annotations

from typing import Any

from stepcredit.generators.records import make_rollout, rollout_id, sampling_json
from stepcredit.labelling import autopsv, monte_carlo
from stepcredit.pipelines.grade import FAILURE_FIELD
from stepcredit.types import GenerationRequest, Prompt, Sampling


def _request(prefix: str = "", **extras: object) -> GenerationRequest:
    prompt = Prompt(id="p", prompt="1+1?", answer="2", extras=extras)
    return GenerationRequest(prompt=prompt, indices=(0,), sampling=Sampling(), response_prefix=prefix)


def test_the_prompts_extras_go_along_but_not_what_was_said_of_another_response() -> None:
    request = _request(level=3, response="old", correct=True, index=7, step_labels=[])
    rollout = make_rollout(request, 4, text="2", reason="stop", policy="me", sampling={})
    assert dict(rollout.extras) == {"level": 3}
    assert (rollout.response, rollout.correct, rollout.index) == ("2", None, 4)


def test_steps_labels_and_remarks_of_another_response_do_not_go_along() -> None:
    old: dict[str, Any] = {
        FAILURE_FIELD: "timeout",
        monte_carlo.FIELD: {"soft": [1.0]},
        autopsv.FIELD: {"threshold": -0.5},
        "steps": ["1", "2"],
        "search": {"worth": 1.0},
        "num_prompt_tokens": 5,
        "num_generated_tokens": 9,
    }
    request = _request("", level=3, **old)
    rollout = make_rollout(request, 0, text="2", reason="stop", policy="me", sampling={})
    assert dict(rollout.extras) == {"level": 3}


def test_ids_tell_samples_and_prefixes_apart() -> None:
    requests = [_request(), _request("a"), _request("b")]
    ids = [rollout_id(request, index) for request in requests for index in (0, 1)]
    assert ids[:2] == ["p:0", "p:1"]
    assert len(set(ids)) == 6


def test_settings_that_are_off_are_left_out() -> None:
    assert sampling_json(Sampling()) == {"temperature": 1.0, "max_new_tokens": 512, "seed": 0}
    full = sampling_json(Sampling(top_p=0.9, top_k=5, min_p=0.1, stop=("#",)))
    assert full == {
        "temperature": 1.0,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "max_new_tokens": 512,
        "stop": ["#"],
        "seed": 0,
    }
