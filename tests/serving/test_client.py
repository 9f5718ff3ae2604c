"""The client, sync and async, against a real server; and against ones that refuse, break or are not there."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from tests.serving.conftest import PROMPT, RESPONSES, lab_scorer, running

from stepcredit.client import AsyncClient, Client
from stepcredit.encoding import EncodingError
from stepcredit.errors import DataError, UserError
from stepcredit.scorers.remote import RemoteScorer
from stepcredit.serving.app import make_app
from stepcredit.serving.batching import Batcher
from stepcredit.serving.options import ServerOptions
from stepcredit.serving.service import Service
from stepcredit.types import Rollout


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    batcher = Batcher(lab_scorer(), batch_tokens=4096, queue_tokens=1 << 16)
    with running(make_app(Service({"lab": batcher}, ServerOptions()))) as address:
        yield address


def test_both_clients_give_what_the_scorer_gives(address: str) -> None:
    expected = [lab_scorer().score(PROMPT, response).reward for response in RESPONSES]

    async def ask() -> Any:
        async with AsyncClient(address) as client:
            return await client.score(PROMPT, RESPONSES), await client.best_of_n(PROMPT, RESPONSES)

    with Client(address) as client:
        assert client.models() == {"lab": (lab_scorer().name, "newline")}
        scores, (index, ranked) = client.score(PROMPT, RESPONSES), client.best_of_n(PROMPT, RESPONSES)
    assert (scores, (index, ranked)) == asyncio.run(ask())
    assert [score.reward for score in scores] == pytest.approx(expected, abs=1e-9)
    assert index == expected.index(max(expected))


def test_a_remote_scorer_is_a_scorer(address: str) -> None:
    rollouts = [
        Rollout(
            id=f"{prompt}:{place}",
            prompt_id=prompt,
            prompt=PROMPT,
            response=response,
            finish_reason="length" if place == 2 else "stop",
        )
        for prompt in ("a", "b")
        for place, response in enumerate([*RESPONSES, "9" * 300])
    ]
    skipped: list[EncodingError] = []
    expected_skips: list[EncodingError] = []
    remote = RemoteScorer(address, with_tokens=True)
    local = lab_scorer()
    local.with_tokens = True
    ours = list(remote.score_all(rollouts, on_skip=skipped.append))
    theirs = list(local.score_all(rollouts, on_skip=expected_skips.append))
    assert [(s.id, s.prompt_id, s.num_tokens, s.scorer) for s in ours] == [
        (s.id, s.prompt_id, s.num_tokens, s.scorer) for s in theirs
    ]
    for score, twin in zip(ours, theirs, strict=True):
        assert score.reward == pytest.approx(twin.reward, abs=1e-9)
        assert score.token_rewards == pytest.approx(twin.token_rewards, abs=1e-9)
    assert [error.where for error in skipped] == [error.where for error in expected_skips] == ["a:3", "b:3"]
    assert {error.kind for error in (*skipped, *expected_skips)} == {"too-long"}
    with pytest.raises(EncodingError):
        list(remote.score_all(rollouts))
    assert remote.score(PROMPT, RESPONSES[0]).reward == pytest.approx(ours[0].reward, abs=1e-9)
    cut_off = remote.score(PROMPT, RESPONSES[0], finished=False)
    twin = local.score(PROMPT, RESPONSES[0], finished=False)
    assert cut_off.num_tokens == twin.num_tokens
    assert cut_off.reward == pytest.approx(twin.reward, abs=1e-9)


def test_steps_that_a_row_lists_are_the_servers_too(address: str) -> None:
    texts = ["7*8=6\n6+5=1", "1-3=8\n#8"]
    listed = Rollout(
        id="listed", prompt_id="a", prompt=PROMPT, response="\n".join(texts), extras={"steps": texts}
    )
    plain = replace(listed, id="plain", extras={})
    foreign = replace(listed, id="foreign", extras={"steps": ["9*9=1"]})
    skipped: list[EncodingError] = []
    ours = list(RemoteScorer(address).score_all([listed, plain, foreign], on_skip=skipped.append))
    theirs = list(lab_scorer().score_all([listed, plain]))
    assert [len(score.steps) for score in ours] == [2, 4]
    for score, twin in zip(ours, theirs, strict=True):
        assert [step.text for step in score.steps] == [step.text for step in twin.steps]
        assert score.aggregates == pytest.approx(twin.aggregates, abs=1e-9)
    assert [(error.where, error.kind) for error in skipped] == [("foreign", "not-encodable")]
    with Client(address) as client, pytest.raises(UserError, match=r"steps \(1 list for 2 responses\)"):
        client.score(PROMPT, ["7", "8"], steps=[["7"]])


def test_a_model_that_is_not_there_is_named(address: str) -> None:
    with pytest.raises(UserError, match=r"has no model 'other'.*#MODEL with one of lab"):
        RemoteScorer(f"{address}#other")


class _Broken(http.server.BaseHTTPRequestHandler):
    """Answers with what the test has put into the list, the last again and again."""

    answers: ClassVar[list[tuple[int, dict[str, str], bytes]]] = []
    asked: ClassVar[list[float]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(time.monotonic())
        status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def broken() -> Iterator[str]:
    _Broken.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, b"{", "no JSON object"),
        (200, b"[]", "no JSON object"),
        (200, b"{}", "does not answer with 1 score"),
        (200, b'{"scores": [5]}', "does not answer with 1 score"),
        (200, b'{"scores": [{"id": "0"}]}', "score 0"),
        (500, b"oops", "status 500"),
        (422, b'{"error": {"message": "too long", "field": "responses.0"}}', "responses.0 .too long"),
        (401, b'{"error": {"message": "token"}}', "STEPCREDIT_TOKEN"),
        (404, b'{"detail": "Not Found"}', "Not Found"),
    ],
)
def test_odd_answers_are_one_line(status: int, body: bytes, problem: str, broken: str) -> None:
    _Broken.answers = [(status, {}, body)]
    with pytest.raises((UserError, DataError), match=problem):
        Client(broken).score("p", ["r"])
    assert len(_Broken.asked) == 1


def test_a_refusal_for_the_moment_is_waited_out(broken: str) -> None:
    body = json.dumps({"scores": []}).encode()
    _Broken.answers = [(429, {"Retry-After": "1"}, b"{}"), (503, {}, b"{}"), (200, {}, body)]
    with pytest.raises(DataError):  # The third answer is read, and has too few scores.
        Client(broken).score("p", ["r"])
    assert len(_Broken.asked) == 3
    assert _Broken.asked[1] - _Broken.asked[0] >= 1.0


def test_coroutines_wait_as_long_as_they_are_asked_to(broken: str) -> None:
    body = json.dumps({"scores": []}).encode()
    _Broken.answers = [(503, {"Retry-After": "1"}, b"{}"), (200, {}, body)]

    async def ask() -> None:
        async with AsyncClient(broken) as client:
            with pytest.raises(DataError):
                await client.score("p", ["r"])

    asyncio.run(ask())
    assert len(_Broken.asked) == 2
    assert _Broken.asked[1] - _Broken.asked[0] >= 1.0


def test_no_server_is_one_line() -> None:
    with pytest.raises(UserError, match=r"does not answer.*stepcredit serve"):
        Client("http://127.0.0.1:9", retries=1).score("p", ["r"])
    with pytest.raises(UserError, match="not the address of a server"):
        Client("localhost:8080")


def test_rows_of_one_prompt_id_keep_their_own_prompts(address: str) -> None:
    rollouts = [
        Rollout(id=prompt, prompt_id="same", prompt=prompt, response=RESPONSES[0])
        for prompt in (PROMPT, "2*3=")
    ]
    remote = [score.reward for score in RemoteScorer(address).score_all(rollouts)]
    assert remote == pytest.approx([score.reward for score in lab_scorer().score_all(rollouts)], abs=1e-9)


def test_fields_of_turns_that_are_null_are_not_sent(address: str) -> None:
    turn: Any = {"role": "user", "content": PROMPT, "refusal": None}
    weighted: Any = turn | {"weight": 1}
    with Client(address) as client:
        assert client.score([turn], ["7"]) == client.score([{"role": "user", "content": PROMPT}], ["7"])
        with pytest.raises(UserError, match=r"refuses at prompt\.0\.weight \(Extra inputs"):
            client.score([weighted], ["7"])


def test_half_a_surrogate_pair_is_not_sent(address: str) -> None:
    with Client(address) as client, pytest.raises(UserError, match="half of a surrogate pair"):
        client.score(PROMPT, ["\ud800"])
