"""Two hundred requests that no client should send; ``stepcredit_bench.serve_faults`` sends more."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepcredit_bench.serving import LAB, ServerProcess, save_models

# Schemathesis takes seconds to import, so ``serve_faults`` is imported in the tests, not in every process.


@pytest.mark.slow
def test_malformed_requests_are_refused_cleanly_and_leave_the_server_as_it_was(tmp_path: Path) -> None:
    from stepcredit_bench.serve_faults import MOST_BYTES, bombard

    with ServerProcess(*save_models(LAB, tmp_path, seed=0), "--max-request-bytes", str(MOST_BYTES)) as server:
        faults = bombard(server, 200, seed=3, parts=2)
    assert faults.failures == []
    assert sum(faults.counts.values()) >= 200
    kinds = {name.rpartition(" ")[0] for name in faults.counts}
    assert kinds == {"body", "raw", "positive by the description", "negative by the description"}
    assert faults.growth_mb < 32


def test_answers_that_should_not_be_are_kept() -> None:
    from stepcredit_bench.serve_faults import Faults

    faults = Faults()
    faults.note("body", 503, b'{"error": {"message": "full"}}', "good")
    faults.note("body", 200, b"{}", "good")
    assert faults.failures == []
    for status, content in (
        (500, b'{"error": {"message": "failed"}}'),
        (422, b"oops"),
        (422, b'{"error": {}}'),
    ):
        faults.note("body", status, content, "bad")
    assert len(faults.failures) == 3
    assert faults.counts == {"body 503": 1, "body 200": 1, "body 500": 1, "body 422": 2}
