from __future__ import annotations

from dataclasses import asdict

from stepcredit_study.word_problems.scale import SCALES, read_word_scale, sizes_changed


def test_the_sizes_that_were_given_can_be_read_from_a_written_scale() -> None:
    sizes = {"train_problems": 7, "seeds": 2}
    assert sizes_changed(asdict(read_word_scale("full", sizes))) == sizes
    assert all(sizes_changed(asdict(scale)) == {} for scale in SCALES.values())
