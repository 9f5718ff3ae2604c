from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient

from stepcredit.client import Client
from stepcredit.lab.policies import policy_path
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.serving.app import make_app
from stepcredit.serving.batching import Batcher
from stepcredit.serving.options import ServerOptions
from stepcredit.serving.service import Service
from stepcredit.types import Message

PROMPT = "7*8+5-3="
RIGHT, WRONG, BEGUN = "7*8=6\n6+5=1\n1-3=8\n#8", "7*8=6\n6+5=1\n1-3=7\n#7", "7*8=6\n6+5"


def lab_prm(**settings: Any) -> ImplicitPRM:
    return ImplicitPRM.from_pretrained(
        policy_path("strong"), policy_path("mid"), beta=0.5, steps="newline", **settings
    )


@pytest.fixture(scope="session")
def prm() -> ImplicitPRM:
    """A reward model of the lab: the strong policy against the middle one."""
    return lab_prm()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a server of the same model."""
    batcher = Batcher(lab_prm(), batch_tokens=4096, queue_tokens=1 << 16)
    client = Client("http://reward.test")
    service = Service({"lab": batcher}, ServerOptions())
    monkeypatch.setattr(client, "_http", TestClient(make_app(service)))
    yield client
    batcher.close()


def ids_of(tokenizer: Any, text: str, *, finished: bool = True) -> list[int]:
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return [*ids, tokenizer.eos_token_id] if finished else ids


def messages(text: str, role: str = "user") -> list[Message]:
    return [{"role": role, "content": text}]


def answers(texts: Sequence[str]) -> list[list[Message]]:
    return [messages(text, "assistant") for text in texts]
