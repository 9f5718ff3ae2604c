"""One request over HTTP and its answer, which is whole within a time or given up."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

_LONGEST_ANSWER = 1 << 29
"""Bytes; more is not an answer but an attack."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sent.

    Attributes:
        headers: By name in lower case.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes


class Exchange:
    """A request whose answer must be whole within some seconds.

    A time limit of a socket counts from one byte to the next, so a server that drips would hold it for
    ever; here a timer closes the connection from outside.

    Args:
        timeout: Seconds for all of it.

    Attributes:
        expired: The time was over.
    """

    def __init__(self, timeout: float) -> None:
        self.expired = False
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._is_cut = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(timeout, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def post(self, address: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        """Send and receive.

        Raises:
            OSError: There is no connection, or it was lost.
            http.client.HTTPException: What came back is not HTTP, or not all of it.
        """
        request = urllib.request.Request(address, content, dict(headers))
        opener = urllib.request.build_opener(_Http(self), _Https(self))
        try:
            with opener.open(request, timeout=self._timeout) as response:
                return _read(response.status, response)
        except urllib.error.HTTPError as error:
            with error:
                return _read(error.code, error)

    def cut(self) -> None:
        """Close the connection: whoever waits for the answer gets an error at once."""
        with self._lock:
            self._is_cut = True
            if self._socket is not None:
                with contextlib.suppress(OSError, ValueError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def watch(self, connected: socket.socket) -> None:
        """Take note of the connection that is to be closed when the time is over."""
        with self._lock:
            self._socket = connected
        if self._is_cut:
            self.cut()

    def _expire(self) -> None:
        self.expired = True
        self.cut()


def _read(status: int, response: Any) -> Answer:
    content = response.read(_LONGEST_ANSWER + 1)
    if len(content) > _LONGEST_ANSWER:
        raise http.client.HTTPException(f"the answer has more than {_LONGEST_ANSWER:,} bytes")
    missing = getattr(response, "length", None)
    if missing:
        raise http.client.IncompleteRead(content, missing)
    return Answer(status, {name.lower(): value for name, value in response.headers.items()}, content)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_watched(http.client.HTTPConnection, self._exchange), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, exchange: Exchange) -> None:
        self._tls = _tls()
        super().__init__(context=self._tls)
        self._exchange = exchange

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        connection = _watched(http.client.HTTPSConnection, self._exchange)
        return self.do_open(connection, req, context=self._tls)


def _watched(kind: Any, exchange: Exchange) -> Any:
    """A kind of connection that shows its socket to the exchange."""

    class Watched(kind):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            exchange.watch(self.sock)

    return Watched


@cache
def _tls() -> ssl.SSLContext:
    # Reading the machine's certificates takes longer than a request.
    return ssl.create_default_context()
