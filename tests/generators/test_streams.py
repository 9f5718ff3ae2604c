from __future__ import annotations

import numpy as np

from stepcredit.generators.streams import stream_key, uniforms


def test_the_stream_is_splitmix64() -> None:
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    drawn = uniforms(np.zeros(4, np.uint64), np.arange(4))
    assert drawn.tolist() == [((number >> 12) + 0.5) / 2**52 for number in published]


def test_numbers_are_uniform_within_a_stream_and_across_streams() -> None:
    keys = np.asarray([stream_key(0, "prompt", index) for index in range(20_000)], np.uint64)
    across = uniforms(keys, np.zeros(len(keys), np.int64))
    within = uniforms(np.full(20_000, keys[0]), np.arange(20_000))
    for numbers in (across, within):
        counts = np.histogram(numbers, bins=50, range=(0, 1))[0]
        chi_square = float(((counts - 400) ** 2 / 400).sum())
        assert 25 < chi_square < 85  # 49 degrees of freedom
    assert abs(np.corrcoef(across, within)[0, 1]) < 0.03


def test_numbers_lie_strictly_between_zero_and_one() -> None:
    smallest = np.asarray([(-1 * 0x9E3779B97F4A7C15) % 2**64], np.uint64)  # mixes the state 0 to 0
    assert uniforms(smallest, np.zeros(1, np.int64))[0] == 0.5 / 2**52


def test_every_part_of_the_key_counts() -> None:
    keys = {
        stream_key(0, "1", 23),
        stream_key(0, "12", 3),
        stream_key(1, "12", 3),
        stream_key(0, "12", 3, "a"),
        stream_key(0, "12", 3, "a "),
        stream_key(0, "12", 4),
    }
    assert len(keys) == 6


def test_keys_stay_as_they_are() -> None:
    """A changed key would silently change what a resumed run draws."""
    assert stream_key(7, "p-1", 3, "So ") == 17432025141818190090
