from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from stepcredit import ImplicitPRM
from stepcredit.lab.policies import policy_path
from stepcredit.serving.app import make_app
from stepcredit.serving.batching import Batcher
from stepcredit.serving.options import ServerOptions
from stepcredit.serving.service import Service

PROMPT = "7*8+5-3="
RESPONSES = ["7*8=6\n6+5=1\n1-3=8\n#8", "7*8=6\n6+5=1\n1-3=7\n#7", "7*8=6\n6+5=2"]


def lab_scorer() -> ImplicitPRM:
    """It computes in float64, as float32's last digits depend on what else is in a batch."""
    scorer = ImplicitPRM.from_pretrained(policy_path("strong"), policy_path("mid"), beta=0.5, steps="newline")
    for log_probs in (scorer.policy, scorer.reference):
        log_probs.model.double()  # type: ignore[union-attr]
    return scorer


@contextlib.contextmanager
def running(app: ASGIApp, **settings: Any) -> Iterator[str]:
    """The address of a real server in a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", **settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def scorer() -> ImplicitPRM:
    """As ``stepcredit score`` would use it."""
    return lab_scorer()


@pytest.fixture
def service() -> Iterator[Service]:
    options = ServerOptions(max_responses=8, max_request_bytes=20_000)
    batcher = Batcher(lab_scorer(), batch_tokens=4096, queue_tokens=1 << 16)
    yield Service({"lab": batcher}, options)
    batcher.close()


@pytest.fixture
def client(service: Service) -> TestClient:
    """Without a lifespan: the service is closed by its own fixture."""
    return TestClient(make_app(service), raise_server_exceptions=False)
