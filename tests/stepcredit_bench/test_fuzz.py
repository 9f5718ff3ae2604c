"""Two thousand calls with damaged inputs: each works, or ends with exit code 2 and one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepcredit_bench.fuzz import fuzz

CALLS, PARTS = 2000, 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(PARTS))
def test_damaged_inputs_end_in_one_line(seed: int, tmp_path: Path) -> None:
    done = fuzz(CALLS // PARTS, seed, tmp_path)
    assert done.failures == []
    assert sum(done.counts.values()) == CALLS // PARTS
    assert {name.rpartition(" ")[2] for name in done.counts} == {"0", "2"}
    assert list(tmp_path.iterdir()) == []
