import os
from concurrent.futures import ProcessPoolExecutor

import pytest

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
