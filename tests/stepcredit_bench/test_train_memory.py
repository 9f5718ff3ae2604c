"""``benchmarks/train_memory.py``: what a step of training holds, by kind."""

from __future__ import annotations

import pytest

import train_memory


@pytest.mark.parametrize("recomputes", [False, True])
def test_parts_add_up_to_the_peak(recomputes: bool) -> None:
    used = train_memory.measure("tiny", 400, recomputes)
    assert 0 < used["tokens"] <= 400
    assert used["moments"] == pytest.approx(2 * used["gradients"], rel=1e-3)
    parts = sum(value for name, value in used.items() if name not in ("peak", "tokens"))
    assert parts == pytest.approx(used["peak"])


def test_a_batch_is_as_many_pairs_as_a_pass_holds() -> None:
    sizes = [len(train_memory.batch_of("tiny", tokens)) for tokens in (1, 1000, 4000)]
    assert sizes[0] == 2
    assert sizes == sorted(sizes)
    assert all(size % 2 == 0 for size in sizes)
