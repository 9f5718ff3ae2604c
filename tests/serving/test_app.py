"""What clients get, and how they hear of their mistakes."""

from __future__ import annotations

import concurrent.futures
import hmac
import json
import sys
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.serving.conftest import PROMPT, RESPONSES

from stepcredit import ImplicitPRM
from stepcredit.data import score_to_json
from stepcredit.generators.fake import FakeGenerator
from stepcredit.scorers.generative import GenerativeScorer
from stepcredit.scorers.judge import Judge
from stepcredit.serving.app import make_app
from stepcredit.serving.batching import Batcher
from stepcredit.serving.options import ServerOptions
from stepcredit.serving.service import Service
from stepcredit.steps import StepRule
from stepcredit.types import GenerationRequest, Message, Rollout


def _offline(scorer: ImplicitPRM, responses: list[str], *, finished: bool = True) -> list[dict[str, Any]]:
    rollouts = [
        Rollout(
            id=str(place),
            prompt_id="0",
            prompt=PROMPT,
            response=response,
            finish_reason="stop" if finished else "length",
        )
        for place, response in enumerate(responses)
    ]
    return [json.loads(json.dumps(score_to_json(score))) for score in scorer.score_all(rollouts)]


@pytest.mark.parametrize("finished", [True, False])
def test_scores_equal_those_of_the_command_to_the_last_digit(
    finished: bool, client: TestClient, scorer: ImplicitPRM
) -> None:
    body = {"prompt": PROMPT, "responses": RESPONSES, "finished": finished}
    answer = client.post("/v1/score", json=body).json()
    assert answer["model"] == "lab"
    assert answer["scores"] == _offline(scorer, RESPONSES, finished=finished)


def test_a_conversation_is_a_prompt_too(client: TestClient, scorer: ImplicitPRM) -> None:
    body = {"prompt": [{"role": "user", "content": PROMPT}], "responses": RESPONSES[:1]}
    (score,) = client.post("/v1/score", json=body).json()["scores"]
    assert score == _offline(scorer, RESPONSES[:1])[0]


def test_token_rewards_come_on_request_and_add_up(client: TestClient) -> None:
    body = {"prompt": PROMPT, "responses": RESPONSES, "tokens": True}
    for score in client.post("/v1/score", json=body).json()["scores"]:
        assert sum(score["token_rewards"]) == pytest.approx(score["reward"], abs=1e-9)
        assert len(score["token_ends"]) == score["num_tokens"]
    body["tokens"] = False
    assert "token_rewards" not in client.post("/v1/score", json=body).json()["scores"][0]


def test_the_best_of_several_is_named(client: TestClient) -> None:
    for by in ("reward", "min", "mean"):
        answer = client.post(
            "/v1/best-of-n", json={"prompt": PROMPT, "responses": RESPONSES, "by": by}
        ).json()
        values = [s["reward"] if by == "reward" else s["aggregates"][by] for s in answer["scores"]]
        assert answer["index"] == values.index(max(values))
    same = client.post("/v1/best-of-n", json={"prompt": PROMPT, "responses": RESPONSES[:1] * 3}).json()
    assert same["index"] == 0


def test_requests_of_many_clients_share_batches(client: TestClient, service: Service) -> None:
    alone = {
        text: client.post("/v1/score", json={"prompt": PROMPT, "responses": [text]}) for text in RESPONSES
    }
    before = service.batchers["lab"].counts.batches
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        futures = [
            pool.submit(client.post, "/v1/score", json={"prompt": PROMPT, "responses": [RESPONSES[n % 3]]})
            for n in range(48)
        ]
        for number, future in enumerate(futures):
            score = future.result().json()["scores"][0]
            expected = alone[RESPONSES[number % 3]].json()["scores"][0]
            assert score["reward"] == pytest.approx(expected["reward"], abs=1e-9)
    assert service.batchers["lab"].counts.batches - before < 48


GOOD: dict[str, Any] = {"prompt": PROMPT, "responses": RESPONSES}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({**GOOD, "prompt": 5}, 422, "prompt"),
        ({**GOOD, "prompt": []}, 422, "prompt"),
        ({**GOOD, "responses": []}, 422, "responses"),
        ({**GOOD, "responses": "one"}, 422, "responses"),
        ({**GOOD, "responses": ["a", None]}, 422, "responses.1"),
        ({**GOOD, "responses": ["a"] * 9}, 422, "responses"),
        ({**GOOD, "responses": ["a", "9" * 300]}, 422, "responses.1"),
        ({**GOOD, "tokens": "yes"}, 422, "tokens"),
        ({**GOOD, "temperature": 1}, 422, "temperature"),
        ({**GOOD, "model": "../other"}, 404, "model"),
        ({"prompt": PROMPT}, 422, "responses"),
        ({**GOOD, "prompt": [{"role": "user"}]}, 422, "prompt.0.content"),
        ({**GOOD, "responses": ["a", [{"role": "assistant", "content": 5}]]}, 422, "responses.1.0.content"),
    ],
)
def test_mistakes_name_the_field(body: Any, status: int, field: str, client: TestClient) -> None:
    response = client.post("/v1/score", json=body)
    assert response.status_code == status, response.text
    assert str(response.json()["error"]["field"]).startswith(field)
    assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"prompt": "\\ud800", "responses": ["a"]}',
        b'{"prompt": "a", "responses": ["\xff"]}',
        b"[" * 5000 + b"]" * 5000,
        b'{"prompt": NaN, "responses": [Infinity]}',
    ],
)
def test_what_is_no_request_is_refused(content: bytes, client: TestClient) -> None:
    response = client.post("/v1/score", content=content, headers={"Content-Type": "application/json"})
    assert 400 <= response.status_code < 500
    assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "kind", "problem"),
    [
        (b'{"prompt": }', "application/json", "the body is not JSON, at character 11"),
        (b'{"prompt": "1+1=", "responses": ["2"]}', "text/plain", "send Content-Type: application/json"),
    ],
)
def test_a_body_that_cannot_be_read_is_said_to_be_one(
    content: bytes, kind: str, problem: str, client: TestClient
) -> None:
    response = client.post("/v1/score", content=content, headers={"Content-Type": kind})
    assert response.json() == {"error": {"message": problem, "field": None}}


def test_a_body_that_is_too_large_is_not_read(client: TestClient) -> None:
    response = client.post("/v1/score", content=b"x" * 20_001)
    assert response.status_code == 413
    chunked = client.post("/v1/score", content=(b"x" * 1000 for _ in range(30)))
    assert chunked.status_code == 413


def test_unknown_paths_and_methods_are_json_too(client: TestClient) -> None:
    assert client.get("/v1/nothing").json()["error"]["message"] == "Not Found"
    assert client.get("/v1/score").status_code == 405


def test_with_a_token_only_the_page_and_the_health_checks_are_open(service: Service) -> None:
    client = TestClient(make_app(service, token="s3cret"))
    assert [client.get(path).status_code for path in ("/", "/healthz", "/readyz")] == [200] * 3
    assert [client.get(path).status_code for path in ("/v1/models", "/metrics")] == [401] * 2
    for given in ("Bearer wrong", "Basic s3cret", "Bearer s3cret ", "bearer"):
        refused = client.post("/v1/score", json=GOOD, headers={"Authorization": given})
        assert refused.status_code == 401
    allowed = client.post("/v1/score", json=GOOD, headers={"Authorization": "Bearer s3cret"})
    assert allowed.status_code == 200


def test_tokens_are_compared_in_constant_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    in_constant_time = hmac.compare_digest

    def compare(given: bytes, expected: bytes) -> bool:
        compared.append((given, expected))
        return in_constant_time(given, expected)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    client = TestClient(make_app(service, token="s3cret"))
    for given, status in (("Bearer s3cret", 200), ("Bearer s3creT", 401), ("B", 401)):
        assert client.get("/v1/models", headers={"Authorization": given}).status_code == status
    assert client.get("/v1/models").headers["WWW-Authenticate"] == "Bearer"
    expected = b"Bearer s3cret"
    assert compared == [(given, expected) for given in (b"Bearer s3cret", b"Bearer s3creT", b"B", b"")]


def test_nothing_is_read_of_a_request_without_the_token(service: Service) -> None:
    client = TestClient(make_app(service, token="s3cret"))
    refused = client.post("/v1/score", content=b"x" * 20_001)
    assert refused.status_code == 401


HOSTILE_TEXT = "../../etc/passwd {{ cycler.__init__ }}{% for x in y %}"


def test_nothing_of_a_request_becomes_a_path_a_model_or_a_template(
    client: TestClient, scorer: ImplicitPRM
) -> None:
    opened: list[str] = []
    sys.addaudithook(lambda event, arguments: opened.append(str(arguments)) if event in _EVENTS else None)
    prompt: list[Message] = [{"role": HOSTILE_TEXT, "content": HOSTILE_TEXT}]
    body = {"prompt": prompt, "responses": [HOSTILE_TEXT]}
    (score,) = client.post("/v1/score", json=body).json()["scores"]
    assert "".join(step["text"] for step in score["steps"]) == HOSTILE_TEXT
    (twin,) = scorer.score_all([(prompt, HOSTILE_TEXT)])
    assert score["reward"] == pytest.approx(twin.reward, abs=1e-9)
    for path, sent in (
        ("/v1/score", {**body, "model": "/etc/passwd"}),
        ("/v1/best-of-n", {**body, "by": HOSTILE_TEXT}),
        ("/get_reward", {"query": [HOSTILE_TEXT], "prompts": [HOSTILE_TEXT], "labels": [HOSTILE_TEXT]}),
        ("/pooling", {"model": HOSTILE_TEXT, "input": HOSTILE_TEXT}),
        ("/classify", {"model": "../lab", "messages": prompt}),
    ):
        assert client.post(path, json=sent).status_code < 500
    assert not [line for line in opened if "passwd" in line or "cycler" in line or "../lab" in line]


_EVENTS = frozenset({"open", "import", "os.listdir", "os.scandir", "compile", "exec", "subprocess.Popen"})


def test_a_failure_of_the_model_is_json_and_the_next_request_is_answered(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(service.batchers["lab"].scorer, "judge", lambda _: 1 / 0)
        failed = client.post("/v1/score", json=GOOD)
    assert failed.status_code == 500
    assert "its own output" in failed.json()["error"]["message"]
    assert client.post("/v1/score", json=GOOD).status_code == 200


def test_models_health_and_metrics_are_there(client: TestClient) -> None:
    client.post("/v1/score", json=GOOD)
    client.post("/v1/score", json={})
    (model,) = client.get("/v1/models").json()["data"]
    assert model["id"] == "lab"
    assert "implicit" in model["scorer"]
    text = client.get("/metrics").text
    assert 'stepcredit_requests_total{path="/v1/score",status="200"} 1.0' in text
    assert 'stepcredit_requests_total{path="/v1/score",status="422"} 1.0' in text
    assert 'stepcredit_responses_total{model="lab"} 3.0' in text


def test_the_interface_is_described_with_examples(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    assert {"/v1/score", "/v1/best-of-n", "/get_reward", "/pooling", "/classify"} <= set(description["paths"])
    assert description["components"]["schemas"]["ScoreRequest"]["examples"][0]["responses"]


def test_a_generative_judge_is_served_like_any_other_model() -> None:
    def verdicts(request: GenerationRequest, index: int) -> str:
        steps = str(request.prompt.prompt).count("</step_")
        words = ["right"] * (steps - 1) + ["wrong"]
        return "\n".join(f"Step {number}: \\boxed{{{word}}}" for number, word in enumerate(words, 1))

    scorer = GenerativeScorer(FakeGenerator(verdicts), Judge.read("steps"), StepRule("newline"))
    batcher = Batcher(scorer, batch_tokens=4096, queue_tokens=1 << 16)
    client = TestClient(make_app(Service({"judge": batcher}, ServerOptions())))
    answer = client.post("/v1/score", json={"prompt": PROMPT, "responses": RESPONSES[:2]}).json()
    (model,) = client.get("/v1/models").json()["data"]
    batcher.close()
    rewards = [[step["reward"] for step in score["steps"]] for score in answer["scores"]]
    assert rewards == [[1.0, 1.0, 1.0, 0.0]] * 2
    assert model["id"] == "judge"
    assert batcher.step_rule == "newline"


@pytest.mark.parametrize("function", ["add", ["add"], 5, None])
def test_calls_of_tools_may_have_any_form(function: Any, client: TestClient) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}
    turns = [{"role": "user", "content": PROMPT}, call, {"role": "tool", "content": "9"}]
    assert client.post("/v1/score", json={"prompt": turns, "responses": ["7"]}).status_code == 200


def test_half_a_surrogate_pair_in_a_tool_is_the_callers_mistake(client: TestClient) -> None:
    body = json.dumps({**GOOD, "tools": [{"name": "\ud800"}]})
    response = client.post("/v1/score", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["error"]["field"] == "responses.0"
    assert "surrogate" in response.json()["error"]["message"]
