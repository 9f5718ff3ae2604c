from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepcredit.logprobs import CachedTokenLogProbs, DeferredTokenLogProbs
from stepcredit.types import Encoded

ITEM = Encoded((1, 2, 3), 1)


class Loud:
    """A source that tells when it is made."""

    fingerprint = "loud"
    made = 0

    def __init__(self) -> None:
        Loud.made += 1

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        return [np.full(item.num_scored, -1.0, np.float32) for item in encoded]


def cached(folder: Path, identity: object) -> CachedTokenLogProbs:
    return CachedTokenLogProbs(DeferredTokenLogProbs(Loud, identity, folder), folder)


def test_what_the_cache_holds_needs_no_model(tmp_path: Path) -> None:
    Loud.made = 0
    first = cached(tmp_path, ["weights", 1])
    (expected,) = first.of([ITEM])
    assert Loud.made == 1
    again = cached(tmp_path, ["weights", 1])
    assert again.fingerprint == "loud"
    assert np.array_equal(again.of([ITEM])[0], expected)
    assert Loud.made == 1
    again.of([ITEM, Encoded((1, 2, 4), 1)])
    again.of([Encoded((1, 2, 5), 1)])
    assert Loud.made == 2


def test_another_identity_is_asked_for_its_own_fingerprint(tmp_path: Path) -> None:
    cached(tmp_path, ["weights", 1]).of([ITEM])
    Loud.made = 0
    assert cached(tmp_path, ["weights", 2]).fingerprint == "loud"
    assert Loud.made == 1
