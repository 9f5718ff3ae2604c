"""Waiting, refusing, giving up and closing, with a scorer that can be held back."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest
from tests.serving.conftest import PROMPT, RESPONSES, lab_scorer

from stepcredit import ImplicitPRM
from stepcredit.errors import DataError
from stepcredit.serving.app import make_app
from stepcredit.serving.batching import Batcher, QueueFullError
from stepcredit.serving.errors import RequestError
from stepcredit.serving.options import ServerOptions
from stepcredit.serving.service import Service
from stepcredit.types import ResponseScore, Rollout


def _rollouts(*responses: str) -> list[Rollout]:
    return [
        Rollout(id=str(place), prompt_id="0", prompt=PROMPT, response=response)
        for place, response in enumerate(responses)
    ]


class _Gate:
    """Holds a scorer back until it is opened."""

    def __init__(self, scorer: ImplicitPRM, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        score_all = scorer.score_all

        def held(*arguments: Any, **settings: Any) -> Any:
            self.entered.set()
            assert self.open.wait(20)
            return score_all(*arguments, **settings)

        monkeypatch.setattr(scorer, "score_all", held)


def test_what_does_not_fit_into_the_queue_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = lab_scorer()
    gate = _Gate(scorer, monkeypatch)
    batcher = Batcher(scorer, batch_tokens=100, queue_tokens=40)

    async def main() -> None:
        first = asyncio.create_task(batcher.score(_rollouts(RESPONSES[0])))
        await asyncio.to_thread(gate.entered.wait)
        second = asyncio.create_task(batcher.score(_rollouts(RESPONSES[0])))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as refused:
            await batcher.score(_rollouts(*RESPONSES * 3))
        assert refused.value.retry_after >= 1
        gate.open.set()
        assert (await first)[0].reward == pytest.approx((await second)[0].reward, abs=1e-9)
        assert len(await batcher.score(_rollouts(*RESPONSES))) == 3

    asyncio.run(main())
    assert batcher.waiting_tokens == 0
    batcher.close()


def test_a_client_is_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = lab_scorer()
    gate = _Gate(scorer, monkeypatch)
    batcher = Batcher(scorer, batch_tokens=100, queue_tokens=15)
    app = make_app(Service({"lab": batcher}, ServerOptions()))
    body = {"prompt": PROMPT, "responses": RESPONSES[:1]}

    async def main() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            accepted = asyncio.create_task(client.post("/v1/score", json=body))
            await asyncio.to_thread(gate.entered.wait)
            for path, status in (("/v1/score", 429), ("/v1/best-of-n", 429), ("/pooling", 422)):
                refused = await client.post(path, json=body)
                assert refused.status_code == status
                assert refused.json()["error"]["message"]
                assert ("Retry-After" in refused.headers) == (status == 429)
            assert int(refused.headers.get("Retry-After", "1")) >= 1
            gate.open.set()
            assert (await accepted).status_code == 200
            assert (await client.post("/v1/score", json=body)).status_code == 200

    asyncio.run(main())
    batcher.close()


def test_what_takes_too_long_is_given_up_and_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = lab_scorer()
    gate = _Gate(scorer, monkeypatch)
    batcher = Batcher(scorer, batch_tokens=10, queue_tokens=10_000)
    service = Service({"lab": batcher}, ServerOptions(request_timeout=0.05))

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(RequestError) as given_up:
                await service.score(batcher, _rollouts(RESPONSES[0]), "responses")
            assert given_up.value.status == 503

    asyncio.run(main())
    gate.open.set()
    batcher.close()
    assert batcher.counts.responses <= 1
    assert batcher.waiting_tokens == 0


def test_one_response_that_fails_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = lab_scorer()
    judge = scorer.judge

    def fragile(encoded: Any) -> Any:
        if any(len(item.steps) == 2 for item in encoded):
            raise DataError("the model gives a reward of nan")
        return judge(encoded)

    monkeypatch.setattr(scorer, "judge", fragile)
    batcher = Batcher(scorer, batch_tokens=10_000, queue_tokens=10_000)

    async def main() -> None:
        good, bad = await asyncio.gather(
            batcher.score(_rollouts(RESPONSES[0])),
            batcher.score(_rollouts(RESPONSES[2])),
            return_exceptions=True,
        )
        assert isinstance(good, list)
        assert isinstance(bad, DataError)

    asyncio.run(main())
    batcher.close()


def test_closing_finishes_what_was_accepted() -> None:
    batcher = Batcher(lab_scorer(), batch_tokens=20, queue_tokens=10_000)

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(batcher.score(_rollouts(*RESPONSES))) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.to_thread(batcher.close)
        return await asyncio.gather(*tasks)

    assert [len(scores) for scores in asyncio.run(main())] == [3] * 5


def test_asked_for_exactly_no_digit_depends_on_other_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [_rollouts(*RESPONSES[: 1 + number % 3], "7*8=5\n" * (number + 1)) for number in range(8)]
    alone = [[score.steps for score in lab_scorer().score_all(request)] for request in requests]
    scorer = lab_scorer()
    gate = _Gate(scorer, monkeypatch)
    batcher = Batcher(scorer, batch_tokens=30, queue_tokens=100_000, exact=True)

    async def main() -> list[list[ResponseScore]]:
        tasks = [asyncio.create_task(batcher.score(request)) for request in requests]
        await asyncio.to_thread(gate.entered.wait)
        gate.open.set()
        return await asyncio.gather(*tasks)

    assert [[score.steps for score in scores] for scores in asyncio.run(main())] == alone
    batcher.close()
    assert batcher.counts.batches == len(requests)
