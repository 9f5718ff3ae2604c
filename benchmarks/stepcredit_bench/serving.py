"""A server in a process of its own, what is asked of it, and how long the answers take."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np

from stepcredit.lab.policies import policy_path
from stepcredit.lab.tokenizer import make_tokenizer
from stepcredit_bench.workload import CONTEXT_LENGTH, PROMPT_TOKENS, RESPONSE_TOKENS, random_model

LAB = "lab"
_LAB_CHARACTERS = ((9, 9), (15, 30))
"""Of a prompt and a response in the lab."""


class ServerProcess:
    """``stepcredit serve`` on a free port of this machine.

    Args:
        words: Its options.
        environment: Beside this process's.

    Attributes:
        process: The process.
        address: Where it listens.

    Raises:
        RuntimeError: It ended before it listened.
    """

    def __init__(self, *words: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stepcredit", "serve", "--port", "0", *words],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self._said: list[str] = []
        for line in self.process.stderr:
            self._said.append(line)
            if match := re.search(r"at (http://\S+)", line):
                self.address = match[1]
                break
        else:
            raise RuntimeError(f"the server ended with {self.process.wait()}: {''.join(self._said)}")
        # What it says must be taken, or it would wait for that.
        self._listening = threading.Thread(target=self._said.extend, args=(self.process.stderr,), daemon=True)
        self._listening.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> tuple[str, str]:
        """Ask it to end; what it wrote to standard output and to standard error."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.wait()

    def wait(self) -> tuple[str, str]:
        """Until it has ended; what it wrote, as of :meth:`end`."""
        assert self.process.stdout is not None
        self.process.wait(timeout=300)
        self._listening.join()
        return self.process.stdout.read(), "".join(self._said)

    @property
    def resident_mb(self) -> float:
        """Its memory now, in MiB (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        match = re.search(r"^VmRSS:\s+(\d+) kB", status, flags=re.MULTILINE)
        assert match is not None, "a process without resident memory"
        return int(match[1]) / 1024

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds that it has used, all threads (Linux)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def save_models(shape: str, folder: Path, *, seed: int) -> list[str]:
    """Options of ``stepcredit serve`` for a reward model of a shape.

    Args:
        shape: ``lab`` for two of the lab's policies, else a shape of random weights that reads the lab's
            tokens, which are characters.
        folder: Where random models are saved.
        seed: Of their weights.
    """
    if shape == LAB:
        policy, reference = policy_path("strong"), policy_path("mid")
    else:
        policy, reference = folder / "policy", folder / "reference"
        tokenizer = make_tokenizer()
        tokenizer.model_max_length = CONTEXT_LENGTH
        for number, directory in enumerate((policy, reference)):
            random_model(shape, seed=seed + number).save_pretrained(directory)
            tokenizer.save_pretrained(str(directory))
    return [
        *("--prm", str(policy), "--reference", str(reference)),
        *("--beta", "0.5", "--steps", "newline"),
    ]


def score_bodies(shape: str, responses: int, *, seed: int) -> Iterator[dict[str, Any]]:
    """Requests without end, no two alike: a prompt, and lines of digits as long as solutions are."""
    rng = random.Random(seed)
    prompts, solutions = _LAB_CHARACTERS if shape == LAB else (PROMPT_TOKENS, RESPONSE_TOKENS)

    def text(bounds: tuple[int, int], separators: str) -> str:
        return "".join(rng.choice("0123456789" + separators) for _ in range(rng.randint(*bounds)))

    while True:
        yield {
            "prompt": text(prompts, "+-*"),
            "responses": [text(solutions, "+-*=\n") for _ in range(responses)],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What clients saw who each sent one request after another.

    Attributes:
        concurrency: Clients.
        seconds: From the first request to the last answer.
        latencies: Seconds of each answered request.
        failures: Status, or what happened, of the others.
        server_cpu_seconds: Processor seconds that the server used in that time.
    """

    concurrency: int
    seconds: float
    latencies: tuple[float, ...]
    failures: tuple[str, ...]
    server_cpu_seconds: float

    @property
    def requests_per_second(self) -> float:
        """Answered requests per second."""
        return len(self.latencies) / self.seconds

    @property
    def cpu_per_request(self) -> float:
        """The server's processor seconds per answered request; other work changes them little."""
        return self.server_cpu_seconds / len(self.latencies) if self.latencies else float("nan")

    def latency(self, share: float) -> float:
        """Seconds within which so large a share of the requests was answered."""
        return float(np.quantile(self.latencies, share)) if self.latencies else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Counts, rate and quantiles."""
        return {
            "concurrency": self.concurrency,
            "requests": len(self.latencies),
            "failures": len(self.failures),
            "seconds": self.seconds,
            "server_cpu_seconds": self.server_cpu_seconds,
            "cpu_seconds_per_request": self.cpu_per_request,
            "requests_per_second": self.requests_per_second,
            **{f"p{share}_seconds": self.latency(share / 100) for share in (50, 95, 99)},
        }


def measure(
    server: ServerProcess,
    bodies: Iterator[dict[str, Any]],
    *,
    concurrency: int,
    requests: int,
    seconds: float,
) -> Load:
    """Let clients ask, each again as soon as it is answered, until one of the two bounds is met.

    Args:
        server: Who is asked.
        bodies: What for.
        concurrency: Clients; each sends one request before anything is timed.
        requests: Most requests.
        seconds: After which no further request is sent.
    """
    return asyncio.run(_measure(server, bodies, concurrency, requests, seconds))


async def _measure(
    server: ServerProcess, bodies: Iterator[dict[str, Any]], concurrency: int, requests: int, seconds: float
) -> Load:
    latencies: list[float] = []
    failures: list[str] = []
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)

    async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
        sent = time.perf_counter()
        try:
            response = await client.post("/v1/score", json=body)
        except httpx.HTTPError as error:
            failures.append(type(error).__name__)
            return
        if response.status_code == 200:
            latencies.append(time.perf_counter() - sent)
        else:
            failures.append(str(response.status_code))

    async def user(client: httpx.AsyncClient, share: int, until: float) -> None:
        for _ in range(share):
            if time.perf_counter() < until:
                await ask(client, next(bodies))

    async with httpx.AsyncClient(
        base_url=server.address, timeout=600, limits=limits, trust_env=False
    ) as client:
        await asyncio.gather(*(ask(client, next(bodies)) for _ in range(concurrency)))
        latencies.clear()
        started, cpu = time.perf_counter(), server.cpu_seconds
        shares = [requests // concurrency + (place < requests % concurrency) for place in range(concurrency)]
        await asyncio.gather(*(user(client, share, started + seconds) for share in shares))
        took = time.perf_counter() - started
    return Load(
        concurrency=concurrency,
        seconds=took,
        latencies=tuple(latencies),
        failures=tuple(failures),
        server_cpu_seconds=server.cpu_seconds - cpu,
    )
