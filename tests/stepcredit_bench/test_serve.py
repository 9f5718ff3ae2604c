from __future__ import annotations

import itertools
import json

import pytest

from stepcredit_bench.serve import Options, run
from stepcredit_bench.serving import Load, score_bodies


@pytest.mark.slow
def test_every_client_is_answered_and_timed() -> None:
    result = run(Options(shape="tiny", concurrency=(1, 3), responses=2, requests=9, seconds=60.0))
    for loads in result.loads.values():
        assert [load.concurrency for load in loads] == [1, 3]
        for load in loads:
            assert (len(load.latencies), load.failures) == (9, ())
            assert 0 < max(load.latencies) <= load.seconds
            assert load.latency(0.5) <= load.latency(0.99)
            assert load.server_cpu_seconds > 0
    assert len(result.gains()) == 2
    assert json.loads(json.dumps(result.to_json()))["loads"]["exact"][1]["requests"] == 9
    assert len(result.to_text().splitlines()) == 2 + 4 + 1


def test_no_two_requests_are_alike_and_a_seed_makes_the_same_ones() -> None:
    first = list(itertools.islice(score_bodies("lab", 4, seed=1), 20))
    assert first == list(itertools.islice(score_bodies("lab", 4, seed=1), 20))
    texts = [text for body in first for text in body["responses"]]
    assert len(set(texts)) == len(texts) == 80


def test_rates_and_quantiles_are_those_of_answered_requests() -> None:
    load = Load(
        concurrency=2, seconds=2.0, latencies=(0.1, 0.3, 0.2), failures=("503",), server_cpu_seconds=1.0
    )
    assert load.requests_per_second == 1.5
    assert load.latency(0.5) == pytest.approx(0.2)
    assert load.cpu_per_request == pytest.approx(1 / 3)
    assert load.to_json()["failures"] == 1
