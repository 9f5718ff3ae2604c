"""A real HTTP server on this machine whose answers, right and broken, a test decides."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What is sent.

    Attributes:
        content: The body; what is not bytes is sent as JSON.
        status: Of HTTP.
        headers: Besides the usual ones.
    """

    content: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


Raw = Callable[[socket.socket], None]
"""Writes to the connection itself, which is closed afterwards."""


def close(_: socket.socket) -> None:
    """Say nothing."""


def reset(connection: socket.socket) -> None:
    """End as a process does that is killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def cut_body(connection: socket.socket) -> None:
    """Promise more than is sent."""
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices": [')


def cut_chunk(connection: socket.socket) -> None:
    """Break off within a chunk."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n{")


def other_protocol(connection: socket.socket) -> None:
    """Speak no HTTP."""
    connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")


def silent(connection: socket.socket) -> None:
    """Take the request and never answer."""
    connection.settimeout(20)
    connection.recv(1)


def drip(beginning: bytes, seconds: float = 20.0) -> Raw:
    """Begin an answer, and then send a byte every 50 ms."""

    def send(connection: socket.socket) -> None:
        connection.sendall(beginning)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(b" ")
            time.sleep(0.05)

    return send


drip_headers = drip(b"HTTP/1.1 200 OK\r\nX-Long: ")
drip_body = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
drip_until_closed = drip(b"HTTP/1.1 200 OK\r\n\r\n{}")


class StubServer:
    """Answers POST requests by ``answer``, called with their number and body, the path included.

    Attributes:
        url: The address, with ``/v1``.
        answer: Gives a reply, or a function that writes to the connection.
        seen: The body of each request.
        headers: Of each request, by name in lower case.
        times: When each of them came.
        most_open: Requests that were answered at the same time.
    """

    def __init__(self) -> None:
        self.answer: Callable[[int, dict[str, Any]], Reply | Raw] = lambda number, body: Reply({})
        self.seen: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.times: list[float] = []
        self.most_open = 0
        self._open = 0
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body = {"path": self.path, **content}
                with stub._lock:
                    number = len(stub.seen)
                    stub.seen.append(body)
                    stub.headers.append({name.lower(): value for name, value in self.headers.items()})
                    stub.times.append(time.monotonic())
                    stub._open += 1
                    stub.most_open = max(stub.most_open, stub._open)
                reply = stub.answer(number, body)
                with stub._lock:
                    stub._open -= 1
                self.close_connection = True
                if isinstance(reply, Reply):
                    self._send(reply)
                else:
                    reply(self.connection)

            def _send(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def stub_server() -> Iterator[StubServer]:
    """A server that listens while the context lasts."""
    stub = StubServer()
    try:
        yield stub
    finally:
        stub.close()
