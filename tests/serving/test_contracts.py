"""Programs written for OpenRLHF's remote reward and vLLM's reward models get what they expect."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import torch
from starlette.testclient import TestClient
from tests.conftest import MakeTokenizer
from tests.serving.conftest import PROMPT, RESPONSES, running

from stepcredit import ImplicitPRM
from stepcredit.encoding import ProcessBenchEncoding
from stepcredit.serving.chat_text import ChatText
from stepcredit.serving.errors import RequestError
from stepcredit.steps import StepRule


def _chat(scorer: ImplicitPRM, prompt: str, response: str, *, ended: bool = True) -> tuple[str, str]:
    """The prompt's part and the whole text, in the model's chat format."""
    tokenizer = scorer.encoding.tokenizer  # type: ignore[attr-defined]
    messages = [{"role": "user", "content": prompt}]
    head = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    end = tokenizer.convert_ids_to_tokens(scorer.encoding.end_of_turn_id)  # type: ignore[attr-defined]
    return head, head + response + (end if ended else "")


def _rewards(client: TestClient, responses: list[str], *, finished: bool = True) -> list[float]:
    body = {"prompt": PROMPT, "responses": responses, "finished": finished}
    return [score["reward"] for score in client.post("/v1/score", json=body).json()["scores"]]


def test_openrlhf_gets_one_reward_per_text(client: TestClient, scorer: ImplicitPRM) -> None:
    texts = [_chat(scorer, PROMPT, response)[1] for response in RESPONSES]
    answer = client.post("/get_reward", json={"query": texts}).json()
    assert answer["rewards"] == answer["scores"] == pytest.approx(_rewards(client, RESPONSES), abs=1e-9)
    assert answer["extra_logs"] == {}


def test_openrlhfs_client_gets_a_tensor(client: TestClient, scorer: ImplicitPRM) -> None:
    """As its ``remote_rm_fn`` asks and reads: requests, a status that is no error, ``rewards``, a tensor."""
    texts = [_chat(scorer, PROMPT, response)[1] for response in RESPONSES]
    heads = [_chat(scorer, PROMPT, response)[0] for response in RESPONSES]
    expected = _rewards(client, RESPONSES)
    with running(client.app) as address:
        response = requests.post(
            url=f"{address}/get_reward",
            json={"query": texts, "prompts": heads, "labels": ["8", "8", "8"]},
            headers={"Content-Type": "application/json"},
            timeout=180,
        )
    response.raise_for_status()
    assert {"rewards", "scores", "extra_logs"} == response.json().keys()
    rewards = torch.tensor(response.json()["rewards"])
    assert rewards.shape == (len(RESPONSES),)
    torch.testing.assert_close(rewards, torch.tensor(expected), rtol=0, atol=2.4e-7)


def test_openrlhf_may_send_prompts_and_labels_beside_the_texts(
    client: TestClient, scorer: ImplicitPRM
) -> None:
    head, text = _chat(scorer, PROMPT, RESPONSES[0])
    body = {"query": [text], "prompts": [head], "labels": ["8"]}
    assert client.post("/get_reward", json=body).json()["rewards"] == pytest.approx(
        _rewards(client, RESPONSES[:1]), abs=1e-9
    )
    plain = {"query": [PROMPT + RESPONSES[0]], "prompts": [PROMPT]}
    assert client.post("/get_reward", json=plain).json()["rewards"] == pytest.approx(
        _rewards(client, RESPONSES[:1], finished=False), abs=1e-9
    )


def test_a_text_without_its_end_of_turn_has_not_ended(client: TestClient, scorer: ImplicitPRM) -> None:
    _, text = _chat(scorer, PROMPT, RESPONSES[2], ended=False)
    assert client.post("/get_reward", json={"query": [text]}).json()["rewards"] == pytest.approx(
        _rewards(client, RESPONSES[2:], finished=False), abs=1e-9
    )


def test_a_formatted_prompt_of_several_turns_is_read_as_it_is(
    client: TestClient, scorer: ImplicitPRM
) -> None:
    turns = [
        {"role": "user", "content": "1+1="},
        {"role": "assistant", "content": "1+1=2\n#2"},
        {"role": "user", "content": PROMPT},
    ]
    tokenizer = scorer.encoding.tokenizer  # type: ignore[attr-defined]
    head = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    end = tokenizer.convert_ids_to_tokens(scorer.encoding.end_of_turn_id)  # type: ignore[attr-defined]
    body = {"query": [head + response + end for response in RESPONSES], "prompts": [head] * len(RESPONSES)}
    scores = client.post("/v1/score", json={"prompt": turns, "responses": RESPONSES}).json()["scores"]
    rewards = [score["reward"] for score in scores]
    assert rewards != pytest.approx(_rewards(client, RESPONSES), abs=1e-3)
    assert client.post("/get_reward", json=body).json()["rewards"] == pytest.approx(rewards, abs=1e-9)


@pytest.mark.parametrize(("path", "field"), [("/get_reward", "query"), ("/pooling", "input")])
def test_other_turns_in_a_text_are_not_scored_as_text(
    path: str, field: str, client: TestClient, scorer: ImplicitPRM
) -> None:
    head, text = _chat(scorer, PROMPT, RESPONSES[0])
    wrong: list[tuple[str, str | None]] = [(text + text, None), (head + text, None)]
    if field == "query":
        wrong += [(text + text, head), (PROMPT + text, PROMPT)]
    for whole, prompt in wrong:
        body = {field: [whole]} | ({} if prompt is None else {"prompts": [prompt]})
        response = client.post(path, json=body)
        assert (response.status_code, response.json()["error"]["field"]) == (422, f"{field}.0")


def test_a_model_that_writes_prompts_itself_refuses_one_of_several_turns(
    make_tokenizer: MakeTokenizer,
) -> None:
    tokenizer = make_tokenizer("chatml")
    scorer: Any = SimpleNamespace(encoding=ProcessBenchEncoding(tokenizer, StepRule("newline"), 512))
    head = "<|im_start|>{}\n3+4?<|im_end|>\n<|im_start|>assistant\n"
    text = ChatText(scorer)
    asked = text.rollout(head.format("user") + "7<|im_end|>\n", "query.0", head.format("user"))
    assert (asked.prompt, asked.response, asked.finish_reason) == ("3+4?", "7", "stop")
    for wrong in (head.format("system"), head.format("user") * 2):
        with pytest.raises(RequestError, match="not one user turn"):
            text.rollout(wrong + "7<|im_end|>\n", "query.0", wrong)


def test_pooling_gives_a_number_per_step(client: TestClient, scorer: ImplicitPRM) -> None:
    texts = [_chat(scorer, PROMPT, response)[1] for response in RESPONSES]
    answer = client.post("/pooling", json={"model": "lab", "input": texts, "task": "token_classify"}).json()
    scores = client.post("/v1/score", json={"prompt": PROMPT, "responses": RESPONSES}).json()["scores"]
    assert answer["object"] == "list"
    assert [item["object"] for item in answer["data"]] == ["pooling"] * 3
    for item, score in zip(answer["data"], scores, strict=True):
        rewards = [[step["reward"]] for step in score["steps"]]
        assert [pytest.approx(reward, abs=1e-9) for reward in rewards] == item["data"]
    assert answer["usage"]["total_tokens"] == sum(score["num_tokens"] for score in scores)


def test_classify_gives_probabilities(client: TestClient) -> None:
    messages = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": RESPONSES[0]}]
    (item,) = client.post("/classify", json={"messages": messages}).json()["data"]
    (reward,) = _rewards(client, RESPONSES[:1])
    assert item["num_classes"] == 2
    assert item["probs"] == pytest.approx([1 - 1 / (1 + math.exp(-reward)), 1 / (1 + math.exp(-reward))])
    assert item["label"] == ("right" if reward >= 0 else "wrong")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/get_reward", {"query": ["no chat format"]}, "query.0"),
        ("/get_reward", {"query": ["ab"], "prompts": ["b"]}, "query.0"),
        ("/get_reward", {"query": ["a"], "prompts": []}, "prompts"),
        ("/get_reward", {"query": []}, "query"),
        ("/pooling", {}, "input"),
        ("/pooling", {"input": "no chat format"}, "input.0"),
        ("/classify", {"messages": [{"role": "assistant", "content": "a"}] * 1}, "messages"),
        ("/classify", {"messages": [{"role": "user", "content": "a"}] * 2}, "messages"),
        ("/classify", {"input": "a", "model": "other"}, "model"),
    ],
)
def test_mistakes_name_the_field(path: str, body: object, field: str, client: TestClient) -> None:
    response = client.post(path, json=body)
    assert 400 <= response.status_code < 500
    assert response.json()["error"]["field"] == field


def test_the_thinking_of_the_last_message_is_scored(client: TestClient) -> None:
    turn = {"role": "assistant", "content": RESPONSES[0], "reasoning_content": "7*8=6"}
    (score,) = client.post("/v1/score", json={"prompt": PROMPT, "responses": [[turn]]}).json()["scores"]
    messages = [{"role": "user", "content": PROMPT}, turn]
    (pooled,) = client.post("/pooling", json={"messages": messages}).json()["data"]
    expected = [step["reward"] for step in score["steps"]]
    assert [number for (number,) in pooled["data"]] == pytest.approx(expected, abs=1e-9)
    assert score["steps"][0]["text"] == "<think>\n"
