"""Clients that send too much, too slowly or not at all are refused or cut off; others are answered."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tests.serving.conftest import running

from stepcredit.serving import limits
from stepcredit.serving.connections import TimedProtocol
from stepcredit.serving.limits import BodyLimit

MOST = 1000


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    await Response(message["body"])(scope, receive, send)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    app = BodyLimit(_echo, most=MOST, seconds=0.5)
    with running(app, http=TimedProtocol, timeout_keep_alive=1, lifespan="off") as address:
        yield address


@contextlib.contextmanager
def _connected(address: str) -> Iterator[socket.socket]:
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        yield connection


def _head(length: int, *more: str) -> bytes:
    return "\r\n".join(("POST / HTTP/1.1", "Host: here", f"Content-Length: {length}", *more, "", "")).encode()


def _answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body; 0 where the connection is closed without an answer."""
    content = b""
    while part := connection.recv(65536):
        content += part
        head, ended, body = content.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if ended and length and len(body) == int(length[1]):
            return int(head.split()[1]), body
    head, _, body = content.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


def test_a_body_of_the_largest_size_is_taken(address: str) -> None:
    with _connected(address) as connection:
        connection.sendall(_head(MOST) + b"a" * MOST)
        assert _answer(connection) == (200, b"a" * MOST)


def test_who_sends_too_much_sees_why_though_the_body_is_not_kept(address: str) -> None:
    with _connected(address) as connection:
        connection.sendall(_head(5 * MOST))
        time.sleep(0.1)
        connection.sendall(b"a" * 5 * MOST)
        status, body = _answer(connection)
    assert status == 413
    assert json.loads(body)["error"]["message"] == "the request is larger than 1,000 bytes"


def test_who_asks_before_sending_too_much_is_told_at_once(address: str) -> None:
    with _connected(address) as connection:
        connection.sendall(_head(10**12, "Expect: 100-continue"))
        assert _answer(connection)[0] == 413


def test_a_body_that_does_not_come_is_not_waited_for(address: str) -> None:
    with _connected(address) as connection:
        connection.sendall(_head(MOST) + b"a")
        started = time.monotonic()
        status, body = _answer(connection)
    assert status == 408
    assert json.loads(body)["error"]["message"] == "the request did not come within 0.5 s"
    assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize("sent", [b"", b"POST / HT", _head(5)[:-2]])
def test_a_request_that_does_not_begin_is_cut_off(sent: bytes, address: str) -> None:
    with _connected(address) as connection:
        connection.sendall(sent)
        assert _answer(connection) == (0, b"")


def test_a_connection_serves_one_request_after_another(address: str) -> None:
    with _connected(address) as connection:
        for number in range(3):
            connection.sendall(_head(1) + b"%d" % number)
            assert _answer(connection) == (200, b"%d" % number)
            time.sleep(0.4)


def test_all_bodies_together_are_bounded(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_REQUESTS_HELD", 2)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(_connected(address)) for _ in range(3)]
        for connection in waiting:
            connection.sendall(_head(MOST) + b"a" * (MOST - 1))
        answers = sorted(_answer(connection)[0] for connection in waiting)
    assert answers == [408, 408, 503]
