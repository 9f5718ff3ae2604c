from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stepcredit.errors import UserError
from stepcredit.generators import pacing
from stepcredit.generators.openai import OpenAIGenerator, ServerLimits
from stepcredit.generators.prompts import PromptFormat
from stepcredit.types import GenerationFailure, GenerationRequest, Prompt, Rollout, Sampling

Reply = tuple[int, dict[str, str], bytes]


def _completion(text: str, reason: Any = "stop") -> Reply:
    answer = {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }
    return 200, {}, json.dumps(answer).encode()


class StubServer:
    """A real HTTP server whose answers a test decides; ``None`` drops the connection."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: set[str] = set()
        self.answer: Callable[[int, dict[str, Any]], Reply | None] = lambda number, body: _completion("ok")
        self.open = self.most_open = 0
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stub._lock:
                    number = len(stub.seen)
                    stub.seen.append({"path": self.path, **body})
                    stub.times.append(time.monotonic())
                    stub.keys.add(self.headers["Authorization"])
                    stub.open += 1
                    stub.most_open = max(stub.most_open, stub.open)
                reply = stub.answer(number, body)
                with stub._lock:
                    stub.open -= 1
                if reply is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                status, headers, content = reply
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)
    stub = StubServer()
    yield stub
    stub.close()


def _request(name: str = "p", num_samples: int = 1, prefix: str = "", **sampling: Any) -> GenerationRequest:
    return GenerationRequest(
        prompt=Prompt(id=name, prompt=f"What is {name}?", answer="4"),
        indices=tuple(range(num_samples)),
        sampling=Sampling(**sampling),
        response_prefix=prefix,
    )


def _generator(server: StubServer, **limits: Any) -> OpenAIGenerator:
    settings = {"concurrency": 4, "timeout": 5.0, "retries": 3, **limits}
    return OpenAIGenerator("m", base_url=server.url, limits=ServerLimits(**settings))


def _results(generator: OpenAIGenerator, *requests: GenerationRequest) -> list[Rollout | GenerationFailure]:
    return list(generator.generate(requests))


def test_every_sample_is_one_request_with_a_seed_of_its_own(server: StubServer) -> None:
    server.answer = lambda number, body: _completion(body["messages"][0]["content"] + str(body["seed"]))
    generator = _generator(server)
    rollouts = _results(generator, _request("a", 3, top_p=0.9, stop=("###",)), _request("b", 2, min_p=0.1))
    found = {(r.prompt_id, r.index): r for r in rollouts if isinstance(r, Rollout)}
    assert set(found) == {("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)}
    assert len({r.response for r in found.values()}) == 5
    assert all(r.response.startswith(f"What is {r.prompt_id}?") for r in found.values())
    assert all(r.policy == "m" and r.finish_reason == "stop" for r in found.values())
    assert (generator.ledger.prompt_tokens, generator.ledger.generated_tokens) == (35, 15)
    sent = {body["messages"][0]["content"]: body for body in server.seen}
    assert sent["What is a?"]["top_p"] == 0.9
    assert sent["What is a?"]["stop"] == ["###"]
    assert sent["What is b?"]["min_p"] == 0.1
    assert "top_k" not in sent["What is b?"]
    again = {
        (r.prompt_id, r.index): r
        for r in _results(_generator(server), _request("a", 3, top_p=0.9))
        if isinstance(r, Rollout)
    }
    assert again["a", 2].response == found["a", 2].response
    assert server.keys == {"Bearer secret"}


def test_no_more_than_so_many_requests_are_open_at_once(server: StubServer) -> None:
    def slow(number: int, body: dict[str, Any]) -> Reply:
        time.sleep(0.02)
        return _completion("ok")

    server.answer = slow
    assert len(_results(_generator(server, concurrency=3), _request("a", 20))) == 20
    assert server.most_open == 3


@pytest.mark.parametrize(
    "trouble",
    [
        (500, {}, b"{}"),
        (503, {}, b"<html>busy</html>"),
        (429, {}, b"{}"),
        (408, {}, b"{}"),
        (200, {}, b'{"choices": [{"mess'),
        (200, {}, b'{"choices": []}'),
        (200, {}, b"[" * 100_000),
        _completion("half of a pair: \ud83d"),
        (200, {}, b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}'),
        (200, {"Content-Type": "text/html"}, b"<html>hello</html>"),
        None,
    ],
    ids=[
        "500",
        "503",
        "429",
        "408",
        "cut JSON",
        "no choice",
        "deep",
        "surrogate",
        "no text",
        "HTML",
        "dropped",
    ],
)
def test_passing_trouble_is_tried_again(server: StubServer, trouble: Reply | None) -> None:
    server.answer = lambda number, body: trouble if number < 2 else _completion("fine")
    (result,) = _results(_generator(server), _request())
    assert isinstance(result, Rollout)
    assert result.response == "fine"
    assert len(server.seen) == 3
    assert len({body["seed"] for body in server.seen}) == 1


def test_a_slow_answer_times_out_and_is_asked_for_again(server: StubServer) -> None:
    def slow_once(number: int, body: dict[str, Any]) -> Reply:
        if number == 0:
            time.sleep(0.6)
        return _completion("fine")

    server.answer = slow_once
    (result,) = _results(_generator(server, timeout=0.2), _request())
    assert isinstance(result, Rollout)
    assert len(server.seen) == 2


def test_lasting_trouble_is_a_failure_with_its_reason_and_the_others_go_on(server: StubServer) -> None:
    def answer(number: int, body: dict[str, Any]) -> Reply:
        asked = body["messages"][0]["content"]
        if asked == "What is long?":
            return 400, {}, b'{"error": {"message": "too many tokens"}}'
        if asked == "What is broken?":
            return 200, {}, b"not json"
        reasons: dict[str, Any] = {"bad": "content_filter", "odd": ["stop"], "fine": "EOS_TOKEN"}
        return _completion("#", reasons[asked.removeprefix("What is ").removesuffix("?")])

    server.answer = answer
    names = ["long", "fine", "broken", "bad", "odd"]
    results = _results(_generator(server, retries=1), *(_request(name) for name in names))
    reasons = {r.prompt_id: r.reason for r in results if isinstance(r, GenerationFailure)}
    assert reasons.keys() == {"long", "broken", "bad", "odd"}
    assert "too many tokens" in reasons["long"]
    assert "not JSON" in reasons["broken"]
    assert "content_filter" in reasons["bad"]
    assert "['stop']" in reasons["odd"]
    counts = [sum(name in body["messages"][0]["content"] for body in server.seen) for name in names]
    assert counts == [1, 1, 2, 1, 1]


def test_all_requests_wait_as_long_as_the_server_asks(server: StubServer) -> None:
    held = {"Retry-After": "0.4"}
    server.answer = lambda number, body: (429, held, b"{}") if number == 0 else _completion("ok")
    assert len(_results(_generator(server, concurrency=1), _request("a", 3))) == 3
    assert server.times[1] - server.times[0] >= 0.4


def test_an_exhausted_rate_limit_is_respected_before_it_is_hit(server: StubServer) -> None:
    exhausted = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}

    def answer(number: int, body: dict[str, Any]) -> Reply:
        status, _, content = _completion("ok")
        return status, exhausted if number == 0 else {}, content

    server.answer = answer
    assert len(_results(_generator(server, concurrency=1), _request("a", 2))) == 2
    assert server.times[1] - server.times[0] >= 0.3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_no_request_can_mend_ends_the_run(server: StubServer, status: int) -> None:
    server.answer = lambda number, body: (status, {}, b'{"error": {"message": "no such model"}}')
    with pytest.raises(UserError, match=r"127\.0\.0\.1.*no such model.*OPENAI_API_KEY"):
        _results(_generator(server), _request("a", 50))
    assert len(server.seen) <= 8


def test_a_server_that_is_not_there_is_told_at_once_and_ends_the_run(
    server: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.close()
    with pytest.raises(UserError, match="cannot be reached"):
        _results(_generator(server, retries=1, concurrency=2), _request("a", 50))
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("warning: http://127.0.0.1")
    assert "no connection" in told


def test_completions_continue_a_prefix_with_token_ids(server: StubServer, tokenizer: Any) -> None:
    answer = {"choices": [{"text": "4\n#4", "finish_reason": "length"}]}
    server.answer = lambda number, body: (200, {}, json.dumps(answer).encode())
    prompt_format = PromptFormat(tokenizer)
    generator = OpenAIGenerator("m", base_url=server.url, prompt_format=prompt_format, name="policy")
    request = GenerationRequest(
        prompt=Prompt(id="p", prompt="2+2="), indices=(0,), sampling=Sampling(), response_prefix="2+2="
    )
    (rollout,) = _results(generator, request)
    assert isinstance(rollout, Rollout)
    assert rollout.response == "2+2=4\n#4"
    assert rollout.finish_reason == "length"
    assert rollout.policy == "policy"
    assert server.seen[0]["path"] == "/v1/completions"
    assert tokenizer.decode(server.seen[0]["prompt"]) == "<|user|>2+2=<|end|><|assistant|>2+2="


def test_the_chat_interface_cannot_continue(server: StubServer) -> None:
    with pytest.raises(UserError, match="--api completions"):
        _results(_generator(server), _request(prefix="So "))


def test_a_reader_that_stops_ends_the_requests(server: StubServer) -> None:
    stream = _generator(server, concurrency=2).generate([_request("a", 1000)])
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    time.sleep(0.1)
    assert len(server.seen) < 20


def test_the_key_comes_from_the_environment_and_addresses_hold_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        OpenAIGenerator("m")
    with pytest.raises(UserError, match="user name or password") as caught:
        OpenAIGenerator("m", base_url="http://me:hidden@localhost/v1")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m30s"}, 90.0),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "1m30s"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "nonsense"}, None),
        ({}, None),
    ],
)
def test_waits_are_read_from_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert pacing.asked_wait(headers) == seconds
