"""No request is read further than its largest size, nor waited for longer than its time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_REQUESTS_HELD = 32
"""Bodies of the largest size that are held at once, over all clients."""

_DISCARDED, _DISCARDING_SECONDS = 8, 5.0
"""How much of a refused body is read all the same, in bodies of the largest size: a client that is cut off
while it sends does not see the answer."""


class BodyLimit:
    """Reads bodies whole before anything is called, so that a refusal is the only answer.

    413 for a body that is too large, by its header or once too much has come; 408 for one that does not come;
    503 for one beside which all clients' bodies would be too much for memory.

    Args:
        most: Bytes of a body.
        seconds: In which it must have come.
    """

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self._app, self._most, self._seconds = app, most, seconds
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is small enough."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self._most:
            if b"expect" not in headers:  # Such a client asks before it sends.
                await self._discard(receive)
            await self._refuse(send, 413)
            return
        body = bytearray()
        try:
            status = await self._read(receive, body)
            if status is None:
                await self._app(scope, _replay(bytes(body), receive), send)
                return
        finally:
            self._held -= len(body)
        if status == 413:
            await self._discard(receive)
        if status:
            await self._refuse(send, status)

    async def _discard(self, receive: Receive) -> None:
        left, is_more = _DISCARDED * self._most, True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARDING_SECONDS):
                while is_more and left > 0:
                    message = await receive()
                    is_more = message["type"] == "http.request" and message.get("more_body", False)
                    left -= len(message.get("body", b""))

    async def _read(self, receive: Receive, body: bytearray) -> int | None:
        """Fill ``body``; the status to refuse it with, 0 where the client has gone, ``None`` once whole."""
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return 0
                    part = message.get("body", b"")
                    body += part
                    self._held += len(part)
                    if len(body) > self._most:
                        return 413
                    if self._held > _REQUESTS_HELD * self._most:
                        return 503
                    if not message.get("more_body", False):
                        return None
        except TimeoutError:
            return 408

    async def _refuse(self, send: Send, status: int) -> None:
        text = {
            413: f"the request is larger than {self._most:,} bytes",
            408: f"the request did not come within {self._seconds:g} s",
            503: "too much is coming in",
        }[status]
        body = json.dumps({"error": {"message": text, "field": None}}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        message: dict[str, Any] = {"type": "http.request", "body": body, "more_body": False}
        return message

    return replayed
