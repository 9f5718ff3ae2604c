"""Requests that no client should send, slow clients, and a server that is killed: nothing but clean answers.

Run: python -m stepcredit_bench.serve_faults --requests 10000 --kills 5 --seed 1
"""

from __future__ import annotations

import argparse
import itertools
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import hypothesis
import requests
import schemathesis
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from stepcredit.client import Client
from stepcredit.errors import UserError
from stepcredit_bench.serve_requests import GOOD, broken_http, damaged_bodies
from stepcredit_bench.serving import LAB, ServerProcess, save_models

MOST_BYTES = 100_000
"""The server's largest request here."""

_CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


@dataclass
class Faults:
    """How the requests ended.

    Attributes:
        counts: Kind and status to requests.
        failures: Answers that should not be, with what was asked.
        resident_mb: The server's memory after every part of the requests.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)

    @property
    def growth_mb(self) -> float:
        """Memory at the end beyond that after the first half, when everything has been seen."""
        return self.resident_mb[-1] - self.resident_mb[len(self.resident_mb) // 2]

    def note(self, kind: str, status: int, content: bytes, asked: object) -> None:
        """Count an answer, and keep it if it should not be: a 5xx but 503, or a refusal that is not JSON."""
        self.counts[f"{kind} {status}"] += 1
        problem = status >= 500 and status != 503
        if status >= 400 and not problem:
            try:
                problem = not httpx.Response(status, content=content).json()["error"]["message"]
            except (ValueError, TypeError, KeyError):
                problem = True
        if problem:
            self.failures.append(f"{kind}: {status} {content[:200]!r} to {str(asked)[:500]}")


def bombard(server: ServerProcess, number: int, seed: int, *, parts: int = 10) -> Faults:
    """Send malformed requests of every kind, in parts, with slow clients beside them all the time."""
    faults = Faults()
    rng = random.Random(seed)
    bodies, broken = damaged_bodies(rng, MOST_BYTES), broken_http(rng)
    with _SlowClients(server.address, rng):
        for part in range(parts):
            share = number // parts + (part < number % parts)
            described = share // 2
            _described(server.address, described, seed * 1000 + part, faults)
            with httpx.Client(base_url=server.address, timeout=120, trust_env=False) as client:
                for sent in itertools.islice(bodies, (share - described) * 2 // 3):
                    content: Any = iter(sent.content) if isinstance(sent.content, list) else sent.content
                    try:
                        answer = client.post(sent.path, content=content, headers=sent.headers)
                    except httpx.TransportError as error:
                        faults.failures.append(f"body: {error!r} to {str(sent)[:500]}")
                    else:
                        faults.note("body", answer.status_code, answer.content, sent)
            for raw in itertools.islice(broken, share - described - (share - described) * 2 // 3):
                _send_raw(server.address, raw, faults)
            faults.resident_mb.append(server.resident_mb)
            if sum(faults.counts.values()) and not _scores(server.address):
                faults.failures.append("a good request is not answered any more")
    return faults


def _scores(address: str) -> bool:
    answers = [
        httpx.post(address + path, json=body, timeout=120, trust_env=False) for path, body in GOOD.items()
    ]
    return all(answer.status_code == 200 for answer in answers)


def _described(address: str, number: int, seed: int, faults: Faults) -> None:
    """Requests from the OpenAPI description, some as it says, some not; answers must be as it says."""
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    posts = [operation for operation in operations if operation.method.lower() == "post"]
    modes = [(post, mode) for post in posts for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]
    with requests.Session() as session:
        session.trust_env = False
        for place, (operation, mode) in enumerate(modes):
            share = number // len(modes) + (place < number % len(modes))
            if share:
                _ask_by_description(operation, mode, share, seed, session, faults)


def _ask_by_description(
    operation: schemathesis.APIOperation[Any, Any, Any, Any],
    mode: GenerationMode,
    number: int,
    seed: int,
    session: requests.Session,
    faults: Faults,
) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case[Any]) -> None:
        answer = case.call(session=session, timeout=120)
        faults.note(f"{mode.value} by the description", answer.status_code, answer.content, case)
        try:
            case.validate_response(answer, checks=_CHECKS)
        except FailureGroup as group:
            faults.failures.append(f"{operation.path}: {group.exceptions}")

    ask()


def _send_raw(address: str, raw: bytes, faults: Faults) -> None:
    """Send bytes, say that no more will come, and read what is answered until the connection is closed."""
    parts = urlsplit(address)
    answer = b""
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except ConnectionError:  # Closed on what is no HTTP, as it may be.
            pass
        except TimeoutError:
            faults.failures.append(f"raw: neither answered nor closed: {raw[:300]!r}")
            return
    for line in [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")] or [b"HTTP/1.1 0 "]:
        status = int(line.split()[1])
        faults.counts[f"raw {status or 'closed'}"] += 1
        if status >= 500 and status != 503:
            faults.failures.append(f"raw: {status} to {raw[:300]!r}")


class _SlowClients:
    """Clients that begin a request and send its bytes one by one, as long as they are let."""

    def __init__(self, address: str, rng: random.Random, *, number: int = 20) -> None:
        parts = urlsplit(address)
        head = b"POST /v1/score HTTP/1.1\r\nHost: here\r\nContent-Length: 90000\r\n\r\n"
        self._ends = threading.Event()
        self._connections = []
        for _ in range(number):
            connection = socket.create_connection((parts.hostname, parts.port), timeout=60)
            connection.sendall(head[: rng.choice((5, len(head) - 1, len(head)))])
            self._connections.append(connection)
        self._thread = threading.Thread(target=self._drip, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        for connection in self._connections:
            connection.close()

    def _drip(self) -> None:
        while not self._ends.wait(0.5):
            for connection in list(self._connections):
                try:
                    connection.sendall(b"a")
                except OSError:  # The server has had enough.
                    self._connections.remove(connection)
                    connection.close()


def kill_under_load(
    words: list[str], kills: int, seed: int, *, clients: int = 4, every: float = 1.0
) -> Faults:
    """Kill a server again and again while clients ask; a request is answered rightly or fails in one line.

    Half of the clients send a request again that failed: all of theirs must be answered.
    """
    faults = Faults()
    rng = random.Random(seed)
    server = ServerProcess(*words)
    port = server.address.rpartition(":")[2]
    body = GOOD["/v1/score"]
    with Client(server.address) as first:
        expected = [score.reward for score in first.score(body["prompt"], body["responses"])]
    ends = threading.Event()

    def ask(retries: int) -> None:
        kind = "patient" if retries else "impatient"
        with Client(server.address, retries=retries, timeout=60) as client:
            while not ends.is_set():
                try:
                    scores = client.score(body["prompt"], body["responses"])
                except UserError as error:
                    faults.counts[f"{kind} failed"] += 1
                    if retries or "does not answer" not in str(error):
                        faults.failures.append(f"{kind}: {error}")
                    time.sleep(0.05)
                else:
                    faults.counts[f"{kind} answered"] += 1
                    if any(abs(s.reward - right) > 1e-5 for s, right in zip(scores, expected, strict=True)):
                        faults.failures.append(f"{kind}: {[score.reward for score in scores]}")

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask, 0 if place % 2 else 10) for place in range(clients)]
        try:
            for _ in range(kills):
                time.sleep(every * (0.5 + rng.random()))
                server.kill()
                server = ServerProcess(*words, "--port", port)
            time.sleep(every)
        finally:
            ends.set()
        for future in asking:
            future.result()
    server.end()
    return faults


def main() -> None:
    """Send them, and print what should not be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        words = save_models(LAB, Path(folder), seed=0)
        with ServerProcess(*words, "--max-request-bytes", str(MOST_BYTES)) as server:
            faults = bombard(server, arguments.requests, arguments.seed)
        killed = kill_under_load(words, arguments.kills, arguments.seed)
    for failure in (*faults.failures, *killed.failures):
        print(failure)
    memory = ", ".join(f"{size:.0f}" for size in faults.resident_mb)
    print(f"{sum(faults.counts.values())} answers in {time.monotonic() - started:.0f} s")
    print(f"{len(faults.failures) + len(killed.failures)} should not be")
    print(f"the server's memory in MiB: {memory}; it grew by {faults.growth_mb:.1f} in the second half")
    for name, count in sorted((faults.counts + killed.counts).items()):
        print(f"{name}: {count}")
    sys.exit(bool(faults.failures or killed.failures))


if __name__ == "__main__":
    main()
