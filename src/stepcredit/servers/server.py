"""A server of models: how it is asked, how often, and what is said while it does not answer."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

from stepcredit.errors import UserError
from stepcredit.runs import warn
from stepcredit.servers.exchange import Answer, Exchange
from stepcredit.servers.pacing import LONGEST_HOLD, Pace, asked_wait
from stepcredit.wording import quantity

Read = TypeVar("Read")

_RETRIED_STATUSES = frozenset({408, 409, 425, 429})
_SECONDS_BETWEEN_WARNINGS = 30.0
_ENVIRONMENT = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How hard a server is pressed.

    Attributes:
        concurrency: Requests that wait for an answer at once.
        timeout: Seconds within which a whole answer must have come.
        retries: How often a request is sent again after the first time.
    """

    concurrency: int = 16
    timeout: float = 600.0
    retries: int = 8


class ServerError(Exception):
    """Why a request has no answer."""


class RefusedError(ServerError):
    """The server will not answer this request, however often it is sent."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"status {status}: {reason}")
        self.status = status


class UnreachableError(ServerError):
    """No connection, however often it was tried."""


class UnreadableAnswerError(ServerError):
    """An answer that is not what the interface promises; another try may get a better one."""


class _UnansweredError(ServerError):
    """No whole answer within the time."""


class _BusyError(ServerError):
    """The server cannot answer now."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"status {answer.status}: {_reason(answer)}")
        self.asked = asked_wait(answer.headers)


class Server:
    """Posts JSON to a server, from any number of threads.

    A request that is refused for the moment (status 408, 409, 425, 429 or 5xx), gets no whole answer within
    the time, loses its connection or gets an answer that cannot be read is sent again after a growing wait,
    or after the wait that the server asks for, which then holds for all requests. What is waited for, and
    why, is said on standard error.

    The key comes from the environment variable ``OPENAI_API_KEY`` only.

    Args:
        base_url: Address, e.g. ``http://localhost:8000/v1``.

    Raises:
        UserError: The address is none, or holds a password.
    """

    def __init__(self, base_url: str, limits: ServerLimits) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise UserError("is not an address", where=base_url, hint="start it with http:// or https://")
        if urlsplit(base_url).username is not None:
            raise UserError(
                "the address holds a user name or password",
                where="the server's address",
                hint="give keys in the environment variable OPENAI_API_KEY",
            )
        self.base_url = base_url.rstrip("/")
        self.limits = limits
        self._pace = Pace()
        self._open: set[Exchange] = set()
        self._lock = threading.Lock()
        self._warned_at = -_SECONDS_BETWEEN_WARNINGS
        self._unsaid = 0
        self._headers = {"Content-Type": "application/json", "User-Agent": "stepcredit"}
        if key := os.environ.get("OPENAI_API_KEY"):
            self._headers["Authorization"] = f"Bearer {key}"
        for name, header in _ENVIRONMENT.items():
            if value := os.environ.get(name):
                self._headers[header] = value

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._pace.stopped

    def stop(self) -> None:
        """Call off all requests: threads that wait for an answer get an error at once."""
        self._pace.stop()
        with self._lock:
            exchanges = list(self._open)
        for exchange in exchanges:
            exchange.cut()

    def post(self, address: str, body: Mapping[str, Any], read: Callable[[Any], Read]) -> Read:
        """Send a request until it is answered, refused for good, or has failed too often.

        Args:
            address: Where to; what does not begin with ``http`` follows the server's address.
            read: Takes out of the decoded answer what is needed, or raises :class:`UnreadableAnswerError`.

        Raises:
            ServerError: There is no answer.
        """
        if not address.startswith("http"):
            address = f"{self.base_url}/{address}"
        content = json.dumps(body).encode()
        for failures in range(1, self.limits.retries + 2):
            self._pace.wait()
            if self.stopped:
                break
            try:
                return self._send(address, content, read)
            except RefusedError:
                raise
            except ServerError as trouble:
                if failures > self.limits.retries or self.stopped:
                    raise
                self._wait(trouble, failures)
        raise ServerError("cancelled")

    def _send(self, address: str, content: bytes, read: Callable[[Any], Read]) -> Read:
        exchange = Exchange(self.limits.timeout)
        with self._lock:
            self._open.add(exchange)
        try:
            with exchange:
                answer = exchange.post(address, content, self._headers)
        except (OSError, http.client.HTTPException) as error:
            if exchange.expired:
                raise self._too_slow() from error
            raise UnreachableError(f"no connection ({_cause(error)})") from error
        finally:
            with self._lock:
                self._open.discard(exchange)
        if exchange.expired:
            raise self._too_slow()
        if answer.status in _RETRIED_STATUSES or answer.status >= 500:
            raise _BusyError(answer)
        if answer.status >= 300:
            raise RefusedError(answer.status, _reason(answer))
        # A server may say beforehand that nothing is left of its limit.
        self._hold(asked_wait(answer.headers))
        return read(_decoded(answer.content))

    def _too_slow(self) -> _UnansweredError:
        return _UnansweredError(f"no whole answer within {self.limits.timeout:g} seconds")

    def _wait(self, trouble: ServerError, failures: int) -> None:
        asked = trouble.asked if isinstance(trouble, _BusyError) else None
        again = f"try {failures + 1} of {self.limits.retries + 1}"
        if asked:
            seconds = min(asked, LONGEST_HOLD)
            if self._hold(asked):
                self._say(f"{trouble}; the server asks to wait {_seconds(asked)}", seconds, again)
            return
        seconds = self._pace.next_wait(failures)
        self._say(str(trouble), seconds, again)
        self._pace.sleep(seconds)

    def _hold(self, seconds: float | None) -> bool:
        """Let all requests wait; False if they do already."""
        return bool(seconds) and self._pace.hold(min(seconds or 0.0, LONGEST_HOLD))

    def _say(self, problem: str, seconds: float, again: str) -> None:
        """Say why nothing comes: at once, and then no more often than every half minute."""
        with self._lock:
            if time.monotonic() - self._warned_at < _SECONDS_BETWEEN_WARNINGS:
                self._unsaid += 1
                return
            unsaid, self._unsaid = self._unsaid, 0
            self._warned_at = time.monotonic()
        more = f"; {quantity(unsaid, 'other request')} failed since the last message" if unsaid else ""
        warn(f"{self.base_url}: {problem}; retrying in {_seconds(seconds)} ({again}){more}")


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswerError(f"the answer is not JSON ({_one_line(str(error))})") from error


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", error)
    return _one_line(str(reason)) or type(reason).__name__


def _one_line(text: str) -> str:
    # What a server says goes to a terminal, which obeys control characters.
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:300]


def _reason(answer: Answer) -> str:
    """What the server says is wrong, in one line."""
    text = answer.content[:100_000].decode("utf-8", errors="replace")
    try:
        content = json.loads(text)
        text = str(content.get("message") or content["error"]["message"])
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        pass
    known = {status.value: status.phrase for status in HTTPStatus}
    return _one_line(text) or known.get(answer.status, "no reason given")
