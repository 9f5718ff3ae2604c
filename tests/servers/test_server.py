from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.servers import stub_server as broken
from tests.servers.stub_server import Raw, Reply, StubServer, stub_server

from stepcredit.errors import UserError
from stepcredit.servers import (
    RefusedError,
    Server,
    ServerError,
    ServerLimits,
    UnreachableError,
    UnreadableAnswerError,
    pacing,
)

FINE = Reply({"fine": True})


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)
    with stub_server() as server:
        yield server


def post(stub: StubServer, **limits: Any) -> Any:
    settings = {"concurrency": 4, "timeout": 5.0, "retries": 1, **limits}
    return Server(stub.url, ServerLimits(**settings)).post("chat", {"a": "é"}, lambda answer: answer)


def test_json_goes_there_and_back(stub: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.answer = lambda number, body: Reply({"number": number, "body": body})
    assert post(stub) == {"number": 0, "body": {"path": "/v1/chat", "a": "é"}}
    assert "authorization" not in stub.headers[0]
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    post(stub)
    assert stub.headers[1]["authorization"] == "Bearer secret"
    assert stub.headers[1]["openai-organization"] == "org"


TROUBLE: dict[str, tuple[Reply | Raw, type[ServerError], str]] = {
    "500": (Reply(b"<html>\n oh\x1b[31m </html>", 500), ServerError, r"status 500: <html> oh \[31m </html>"),
    "429": (Reply({"message": "slow down"}, 429), ServerError, "status 429: slow down"),
    "503 without a word": (Reply(b"", 503), ServerError, "status 503: Service Unavailable"),
    "cut JSON": (Reply(b'{"choices": [{"mess'), UnreadableAnswerError, "not JSON"),
    "HTML": (Reply(b"<html>hello</html>"), UnreadableAnswerError, "not JSON"),
    "nothing": (Reply(b""), UnreadableAnswerError, "not JSON"),
    "deep JSON": (Reply(b"[" * 100_000), UnreadableAnswerError, "not JSON"),
    "bad UTF-8": (Reply(b'"\xff\xfe"'), UnreadableAnswerError, "not JSON"),
    "close": (broken.close, UnreachableError, "no connection"),
    "reset": (broken.reset, UnreachableError, "no connection"),
    "cut body": (broken.cut_body, UnreachableError, "no connection"),
    "cut chunk": (broken.cut_chunk, UnreachableError, "no connection"),
    "other protocol": (broken.other_protocol, UnreachableError, "no connection"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_is_tried_again(stub: StubServer, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    trouble, kind, message = TROUBLE[name]
    stub.answer = lambda number, body: trouble if number == 0 else FINE
    assert post(stub) == {"fine": True}
    stub.answer = lambda number, body: trouble
    with pytest.raises(kind, match=message):
        post(stub)
    assert len(stub.seen) == 4
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"warning: {stub.url}: ")
    assert "retrying in" in first
    assert first.endswith("(try 2 of 2)")
    assert "\x1b" not in second


@pytest.mark.parametrize(
    "slow",
    [broken.silent, broken.drip_headers, broken.drip_body, broken.drip_until_closed],
    ids=["silent", "drips headers", "drips a body", "drips without a length"],
)
def test_the_time_limit_is_that_of_the_whole_answer(stub: StubServer, slow: Raw) -> None:
    stub.answer = lambda number, body: slow
    started = time.monotonic()
    with pytest.raises(ServerError, match=r"no whole answer within 1 second"):
        post(stub, timeout=1.0, retries=0)
    assert 1.0 <= time.monotonic() - started < 5.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_refusal_is_not_tried_again(stub: StubServer, status: int) -> None:
    stub.answer = lambda number, body: Reply({"error": {"message": "too\nlong"}}, status)
    with pytest.raises(RefusedError, match=f"status {status}: too long"):
        post(stub)
    assert len(stub.seen) == 1


def test_what_the_reader_cannot_read_is_tried_again(stub: StubServer) -> None:
    def read(answer: Any) -> Any:
        if len(stub.seen) < 2:
            raise UnreadableAnswerError("no text")
        return answer

    stub.answer = lambda number, body: FINE
    assert Server(stub.url, ServerLimits(retries=1)).post("chat", {}, read) == {"fine": True}


def test_all_requests_wait_as_long_as_the_server_asks_and_it_is_said(
    stub: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    held = Reply({"message": "quota"}, 429, {"Retry-After": "0.4"})
    stub.answer = lambda number, body: held if number == 0 else FINE
    server = Server(stub.url, ServerLimits(retries=1))
    server.post("chat", {}, lambda answer: answer)
    assert stub.times[1] - stub.times[0] >= 0.4
    assert capsys.readouterr().err == (
        f"warning: {stub.url}: status 429: quota; the server asks to wait 0.4 s; "
        "retrying in 0.4 s (try 2 of 2)\n"
    )


def test_a_server_that_asks_for_an_hour_is_asked_again_after_ten_minutes(
    stub: StubServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def hold(self: pacing.Pace, seconds: float) -> bool:
        waits.append(seconds)
        return True

    monkeypatch.setattr(pacing.Pace, "hold", hold)
    stub.answer = lambda number, body: Reply({}, 429, {"Retry-After": "3600"}) if number == 0 else FINE
    assert post(stub) == {"fine": True}
    assert waits == [600.0]
    assert "status 429: {}; the server asks to wait 3,600 s; retrying in 600 s" in capsys.readouterr().err


def test_an_exhausted_limit_is_respected_before_it_is_hit(stub: StubServer) -> None:
    exhausted = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
    stub.answer = lambda number, body: Reply({}, headers=exhausted if number == 0 else {})
    server = Server(stub.url, ServerLimits())
    for _ in range(2):
        server.post("chat", {}, lambda answer: answer)
    assert stub.times[1] - stub.times[0] >= 0.3


def test_many_failures_are_one_message_in_half_a_minute(
    stub: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer = lambda number, body: Reply({}, 500) if number < 6 else FINE
    assert post(stub, retries=8) == {"fine": True}
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_called_off_requests_end_at_once_and_without_a_word(
    stub: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer = lambda number, body: broken.silent
    server = Server(stub.url, ServerLimits(retries=3))
    problems: list[Exception] = []

    def ask() -> None:
        try:
            server.post("chat", {}, lambda answer: answer)
        except ServerError as error:
            problems.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(stub.seen) < 3:
        time.sleep(0.01)
    server.stop()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert len(problems) == 3
    assert capsys.readouterr().err == ""


def test_nobody_listens(stub: StubServer) -> None:
    stub.close()
    with pytest.raises(UnreachableError, match=r"no connection .*refused"):
        post(stub)


@pytest.mark.parametrize(
    ("address", "problem"),
    [("localhost:8000", "is not an address"), ("http://me:hidden@localhost/v1", "user name or password")],
)
def test_an_address_is_checked_and_never_shows_a_password(address: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        Server(address, ServerLimits())
    assert "hidden" not in str(caught.value)
