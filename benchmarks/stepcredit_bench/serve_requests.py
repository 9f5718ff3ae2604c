"""Requests that no client should send, made at random: damaged bodies and broken HTTP."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PATHS = ("/v1/score", "/v1/best-of-n", "/get_reward", "/pooling", "/classify")
_TEXT = "7*8=6\n6+5=1\n1-3=8\n#8"
_MESSAGES = [{"role": "user", "content": "7*8+5-3="}, {"role": "assistant", "content": _TEXT}]
GOOD: dict[str, dict[str, Any]] = {
    "/v1/score": {"prompt": "7*8+5-3=", "responses": [_TEXT, "7*8=5"], "tokens": True},
    "/v1/best-of-n": {"prompt": "7*8+5-3=", "responses": [_TEXT, "7*8=5"], "by": "min"},
    "/get_reward": {"query": ["7*8+5-3=" + _TEXT], "prompts": ["7*8+5-3="], "labels": ["8"]},
    "/pooling": {"messages": _MESSAGES},
    "/classify": {"messages": _MESSAGES, "model": None},
}
"""A request that is answered with scores, for each path."""

_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1e308,
        10**400,
        "",
        " ",
        "\x00",
        "\ud800",
        "a\udfffb",
        "{{ 7 * 7 }}",
        "../../etc/passwd",
    ),
    *("9" * 3000, "🙂" * 200, "\u202e\u0000\uffff", [], [[]], {}, [None], ["a"] * 2000, {"a": {"b": []}}),
    *([{"role": "user"}], [{"role": "{{ cycler }}", "content": "a"}], float("nan"), float("-inf")),
)
_CONTENT_TYPES = (
    "application/json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "",
)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request over an ordinary client."""

    path: str
    content: bytes | list[bytes]
    headers: dict[str, str]


def damaged_bodies(rng: random.Random, most_bytes: int) -> Iterator[Sent]:
    """Requests without end: good ones with a value, bytes or all replaced, and ones that are too large."""
    while True:
        path = rng.choice(PATHS)
        body: dict[str, Any] = json.loads(json.dumps(GOOD[path]))
        headers = {"Content-Type": rng.choices(_CONTENT_TYPES, (20, 1, 1, 1, 1))[0]}
        kind = rng.randrange(6)
        if kind <= 2:
            _damage(body, rng)
            content = json.dumps(body).encode("utf-8", "surrogatepass")
        elif kind == 3:
            content = _spoilt(json.dumps(body).encode(), rng)
        elif kind == 4:
            content = rng.choice(
                (
                    b"[" * rng.randint(1, 100_000),
                    json.dumps(body).encode("utf-16"),
                    b"\xef\xbb\xbf" + json.dumps(body).encode(),
                    json.dumps(body)[:-1].encode() + b', "prompt": "again"}',
                    rng.randbytes(rng.randint(0, 200)),
                    b'{"prompt": ' + b"9" * 5000 + b"}",
                )
            )
        else:
            size = most_bytes + rng.randint(1, most_bytes)
            whole = json.dumps({**body, "prompt": "9" * size}).encode()
            yield Sent(
                path, [whole[:most_bytes], whole[most_bytes:]] if rng.random() < 0.5 else whole, headers
            )
            continue
        yield Sent(path, content, headers)


def _damage(body: dict[str, Any], rng: random.Random) -> None:
    """Replace, drop or add one value somewhere in a body."""
    place: Any = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        inner = place[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.5:
            place = inner
            continue
        break
    action = rng.randrange(5)
    if action == 0:
        del place[key]
    elif action == 1 and isinstance(place, dict):
        place[rng.choice(("extra", "", "model", "__class__"))] = rng.choice(_VALUES)
    else:
        place[key] = rng.choice(_VALUES)


def _spoilt(content: bytes, rng: random.Random) -> bytes:
    """Some bytes replaced, dropped or put in."""
    spoilt = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(spoilt))
        spoilt[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
    return bytes(spoilt)


def broken_http(rng: random.Random) -> Iterator[bytes]:
    """Bytes without end that are no whole request, or one that contradicts itself."""
    body = json.dumps(GOOD["/v1/score"]).encode()

    def head(*lines: str, path: str = "/v1/score", method: str = "POST") -> bytes:
        first = (f"{method} {path} HTTP/1.1", "Host: here", "Content-Type: application/json", *lines)
        return "\r\n".join(first).encode("latin-1") + b"\r\n\r\n"

    length = len(body)
    whole = head(f"Content-Length: {length}") + body
    while True:
        yield rng.choice(
            (
                rng.randbytes(rng.randint(1, 300)),
                whole[: rng.randrange(1, len(whole))],
                _spoilt(whole, rng),
                head(f"Content-Length: {length + rng.randint(1, 999)}") + body,
                head(f"Content-Length: {rng.randrange(length)}") + body,
                head(f"Content-Length: {length}", f"Content-Length: {length + 1}") + body,
                head(f"Content-Length: {length}", "Transfer-Encoding: chunked") + body,
                head("Transfer-Encoding: chunked") + b"ffffffffffffffff\r\n" + body,
                head("Transfer-Encoding: chunked") + b"%x\r\n%s\r\nzz\r\n" % (length, body),
                head("Content-Length: -5") + body,
                head("Content-Length: " + "9" * 50) + body,
                head("X-Long: " + "a" * rng.choice((10_000, 100_000))),
                head(*(f"X-{number}: a" for number in range(3000))),
                head(path="/" + "a" * 70_000, method="GET"),
                head(
                    path=rng.choice(("/..%2f..%2fetc/passwd", "/%00", "/v1/score/../models", "//", "/?a=%ff"))
                ),
                head(method=rng.choice(("BREW", "CONNECT", "TRACE", "get", "PRI", "\x00"))),
                head("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: a"),
                head("Expect: 100-continue", f"Content-Length: {length}"),
                head("Content-Encoding: gzip", f"Content-Length: {length}") + body,
                whole * rng.randint(2, 20),
            )
        )
