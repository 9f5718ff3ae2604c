import base64
import io
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stepcredit.errors import DataError, MissingExtraError, UserError
from stepcredit.logprobs.remote import INTERFACES, RemoteTokenLogProbs
from stepcredit.logprobs.vllm import VLLMTokenLogProbs
from stepcredit.types import Encoded

ENCODED = [
    Encoded(token_ids=(5, 9, 200, 31, 7), scored_start=2),
    Encoded(token_ids=(5, 9), scored_start=1),
    Encoded(token_ids=(1, 2, 3), scored_start=3),
    Encoded(token_ids=tuple(range(20, 60)), scored_start=10),
]


def log_probs(model: Any, tokens: list[int]) -> list[float]:
    """Of every token but the first, by a float64 model."""
    ids = torch.tensor([tokens])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1]
    return [float(x) for x in logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]]


@dataclass
class StubServer:
    """Answers as the interfaces do, from a tiny model; ``faults`` are sent before the first answers."""

    model: Any
    faults: list[tuple[int, str]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, Any], str | None]] = field(default_factory=list)
    mangle: Any = None
    url: str = ""

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/inference/v1/generate":
            parameters = body["sampling_params"]
            start = parameters["prompt_logprob_start"]
            values = log_probs(self.model, body["token_ids"])[start:]
            asked = [row[0] for row in parameters["prompt_logprob_token_ids"]]
            assert asked == body["token_ids"][start + 1 :]
            file = io.BytesIO()
            np.save(file, np.array(values, np.float32)[:, None])
            return {"prompt_token_id_logprobs": base64.b64encode(file.getvalue()).decode()}
        assert path == "/v1/completions"
        values = log_probs(self.model, body["prompt"])
        if "prompt_logprobs" in body:
            rows: list[Any] = [None]
            for token, value in zip(body["prompt"][1:], values, strict=True):
                rows.append({"0": {"logprob": -1.0}, str(token): {"logprob": value, "rank": 3}})
            return {"choices": [{"prompt_logprobs": rows}]}
        assert body["echo"] is True
        return {"choices": [{"logprobs": {"token_logprobs": [None, *values, -0.5]}}]}


@pytest.fixture
def server(make_model: Any) -> Iterator[StubServer]:
    # Converted once: requests are answered at the same time, and converting changes weights in place.
    stub = StubServer(make_model(12).double())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            stub.requests.append((self.path, body, self.headers["Authorization"]))
            if stub.faults:
                status, text = stub.faults.pop(0)
            else:
                status, text = 200, json.dumps((stub.mangle or (lambda x: x))(stub.answer(self.path, body)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    yield stub
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize("interface", INTERFACES)
def test_scored_tokens_of_each_sequence_in_order(server: StubServer, interface: str) -> None:
    remote = RemoteTokenLogProbs(server.url, "m", interface=interface, concurrency=3)
    for item, values in zip(ENCODED, remote.of(ENCODED), strict=True):
        expected = log_probs(server.model, list(item.token_ids))[item.scored_start - 1 :]
        assert values.dtype == np.float32
        assert values.tolist() == pytest.approx(expected, abs=1e-5)
    assert all(body["model"] == "m" for _, body, _ in server.requests)
    assert len(server.requests) == 3  # nothing is asked for a sequence without scored tokens


def test_no_sequences_need_no_server() -> None:
    assert RemoteTokenLogProbs("http://127.0.0.1:9", "m").of([]) == []


def test_the_key_comes_from_the_environment(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    RemoteTokenLogProbs(server.url, "m").of(ENCODED[:1])
    monkeypatch.setenv("OPENAI_API_KEY", "k1")
    RemoteTokenLogProbs(server.url, "m").of(ENCODED[:1])
    assert [key for _, _, key in server.requests] == [None, "Bearer k1"]


def test_faults_that_may_pass_are_tried_again(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.faults = [(503, "busy"), (429, "slow down"), (200, "{not json")]
    remote = RemoteTokenLogProbs(server.url, "m")
    assert len(remote.of(ENCODED[:1])[0]) == 3
    assert len(server.requests) == 4
    server.faults = [(200, "[" * 100_000)]
    assert len(remote.of(ENCODED[:1])[0]) == 3
    server.faults = [(503, "busy")] * 2
    with pytest.raises(UserError, match="the server answered 503: busy"):
        RemoteTokenLogProbs(server.url, "m", retries=1).of(ENCODED[:1])


def test_a_refusal_is_told_at_once(server: StubServer) -> None:
    server.faults = [(404, json.dumps({"error": {"message": "no model 'm'\nhere"}}))]
    with pytest.raises(UserError, match=r"/v1/completions: the server answered 404: no model 'm' here"):
        RemoteTokenLogProbs(server.url, "m").of(ENCODED[:1])
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match=r"no answer .*Check that the server is running"):
        RemoteTokenLogProbs("http://127.0.0.1:9/v1", "m", retries=0).of(ENCODED[:1])


def test_that_no_answer_comes_is_told_before_it_is_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no answer"):
        RemoteTokenLogProbs("http://127.0.0.1:9/v1", "m", retries=1).of(ENCODED[:1])
    assert "tried 1 more times" in capsys.readouterr().err


@pytest.mark.parametrize(
    "mangle",
    [
        lambda answer: {},
        lambda answer: {"choices": [{"logprobs": None}]},
        lambda answer: {"choices": [{"logprobs": {"token_logprobs": [None, -1.0]}}]},
        lambda answer: {"choices": [{"logprobs": {"token_logprobs": [None] * 5}}]},
        lambda answer: {"choices": [{"logprobs": {"token_logprobs": [10**400] * 5}}]},
        lambda answer: {"choices": [{"logprobs": {"token_logprobs": ["x"] * 5}}]},
    ],
)
def test_an_answer_without_one_value_a_token_is_a_data_error(server: StubServer, mangle: Any) -> None:
    server.mangle = mangle
    with pytest.raises(DataError, match="log-probabilities"):
        RemoteTokenLogProbs(server.url, "m").of(ENCODED[:1])


def test_the_fingerprint_tells_models_apart(server: StubServer, make_model: Any) -> None:
    first = RemoteTokenLogProbs(server.url, "m").fingerprint
    assert RemoteTokenLogProbs(server.url, "m", interface="token-ids").fingerprint == first
    server.model = make_model(13)
    assert RemoteTokenLogProbs(server.url, "m").fingerprint != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:8000", "m", "echo"), "is not an address"),
        (("http://localhost", "m", "chat"), "no interface 'chat'"),
    ],
)
def test_wrong_settings_are_user_errors(arguments: tuple[str, str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RemoteTokenLogProbs(arguments[0], arguments[1], interface=arguments[2])


class FakeEngine:
    """A ``vllm.LLM`` as far as it is used, on a tiny model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(dtype="float32"))

    def generate(self, prompts: Any, parameters: Any, use_tqdm: bool) -> list[Any]:
        outputs = []
        for prompt, asked in zip(prompts, parameters, strict=True):
            values = log_probs(self.model, prompt["prompt_token_ids"])
            rows = [
                None,
                *[
                    {t: SimpleNamespace(logprob=v)}
                    for t, v in zip(prompt["prompt_token_ids"][1:], values, strict=True)
                ],
            ]
            start = asked.settings.get("prompt_logprob_start")
            matrix = None if start is None else np.array(values[start:])[:, None]
            outputs.append(
                SimpleNamespace(
                    prompt_logprobs=rows if "prompt_logprobs" in asked.settings else None,
                    prompt_token_id_logprobs=matrix,
                )
            )
        return outputs


@pytest.mark.parametrize("gathers", [True, False])
def test_vllm_gathers_scored_tokens_where_it_can(
    gathers: bool, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SamplingParams:
        def __init__(self, **settings: Any) -> None:
            self.settings = settings
            assert ("prompt_logprob_token_ids" in settings) == gathers

    if gathers:
        SamplingParams.prompt_logprob_token_ids = None  # type: ignore[attr-defined]
    fake: Any = ModuleType("vllm")
    fake.SamplingParams, fake.__version__ = SamplingParams, "0.0"
    monkeypatch.setitem(sys.modules, "vllm", fake)
    source = VLLMTokenLogProbs(FakeEngine(make_model(12).double()), weights_hash="w")
    items = ENCODED[:2]
    for item, values in zip(items, source.of(items), strict=True):
        expected = log_probs(make_model(12).double(), list(item.token_ids))[item.scored_start - 1 :]
        assert values.tolist() == pytest.approx(expected, abs=1e-5)
    assert source.fingerprint != VLLMTokenLogProbs(FakeEngine(None), weights_hash="v").fingerprint


def test_a_missing_vllm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stepcredit\[vllm\]'"):
        VLLMTokenLogProbs(None, weights_hash="w")
