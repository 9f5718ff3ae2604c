import os
import time
from concurrent.futures import ProcessPoolExecutor

import pytest
from tests.processes import CONTEXT

from stepcredit.runs import workers


class _HerePool:
    """Stands where processes would be started: only their environment matters here."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def shutdown(self, **_: object) -> None: ...


@pytest.fixture(autouse=True)
def _two_jobs_on_eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(workers, ProcessPoolExecutor.__name__, _HerePool)


@pytest.mark.parametrize(("given", "threads"), [(None, "4"), ("1", "1"), ("16", "4"), ("many", "4")])
def test_a_worker_has_its_share_of_threads_and_no_more_than_the_environment_gives(
    given: str | None, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    with workers.worker_pool(2):
        assert os.environ["OMP_NUM_THREADS"] == threads
        assert os.environ["MKL_NUM_THREADS"] == "4"
    assert os.environ.get("OMP_NUM_THREADS") == given
    assert "MKL_NUM_THREADS" not in os.environ


def test_whoever_asks_to_end_does_not_wait_for_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, ProcessPoolExecutor.__name__, ProcessPoolExecutor)
    monkeypatch.setattr(workers, "START_METHOD", CONTEXT.get_start_method())
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), workers.worker_pool(1) as pool:
        working = pool.submit(time.sleep, 300)
        while not working.running():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 200
