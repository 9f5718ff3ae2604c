from __future__ import annotations

from typing import Any

from stepcredit.generators.limits import BatchLimits


def test_limits_follow_from_the_bytes_of_a_token_and_a_row(model: Any, tokenizer: Any) -> None:
    # Two layers, two key-value heads of width 4, keys and values in float32: 2 * 2 * 2 * 4 * 4 = 128 bytes.
    limits = BatchLimits.fitting(model)
    assert limits.cached_tokens == (2 << 30) // 128
    assert limits.samples == 2048


def test_a_large_vocabulary_lowers_the_number_of_rows(make_model: Any) -> None:
    # A row of 131,072 token ids takes 40 bytes each: 5 MiB, of a quarter of 4 GiB.
    assert BatchLimits.fitting(make_model(vocab_size=131_072)).samples == (1 << 30) // (40 * 131_072)


def test_given_limits_stand(model: Any) -> None:
    limits = BatchLimits.fitting(model, samples=3, cached_tokens=500)
    assert (limits.samples, limits.cached_tokens) == (3, 500)
