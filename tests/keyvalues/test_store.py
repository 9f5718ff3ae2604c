"""Sequences that are kept come back whole, shared beginnings are held once, the oldest ends go first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcredit.keyvalues.rows import States
from stepcredit.keyvalues.store import PrefixStore


def _states(tokens: tuple[int, ...], first: int, last: int) -> States:
    """Keys that say which token they belong to, values that say where it stands."""
    keys = torch.tensor(tokens[first:last], dtype=torch.float32)[None, :, None]
    values = torch.arange(first, last, dtype=torch.float32)[None, :, None]
    return ((keys, values),)


def _keep(store: PrefixStore, *tokens: int) -> None:
    numbers = np.asarray([token / 10 for token in tokens], np.float32)
    store.keep(tokens, lambda first, last: _states(tokens, first, last), numbers)


def _held(store: PrefixStore, *tokens: int) -> list[int]:
    held = store.longest(tokens)
    keys = [int(key) for piece, used in held.parts for key in piece.states[0][0][0, :used, 0]]
    places = [int(place) for piece, used in held.parts for place in piece.states[0][1][0, :used, 0]]
    assert places == list(range(held.length))
    assert len(keys) == held.length
    assert np.allclose(held.numbers(), np.asarray(keys) / 10)
    return keys


def test_the_longest_beginning_is_found() -> None:
    store = PrefixStore(100)
    _keep(store, 1, 2, 3, 4)
    _keep(store, 1, 2, 7)
    assert _held(store, 1, 2, 3, 4, 5) == [1, 2, 3, 4]
    assert _held(store, 1, 2, 7, 7) == [1, 2, 7]
    assert _held(store, 1, 2) == [1, 2]
    assert _held(store, 2, 1) == []


def test_a_shared_beginning_is_held_once() -> None:
    store = PrefixStore(100)
    _keep(store, 1, 2, 3)
    _keep(store, 1, 2, 3, 4)
    _keep(store, 1, 2, 3, 5)
    _keep(store, 1, 2, 3)
    assert store.num_tokens == 5


def test_what_was_not_looked_up_for_longest_is_dropped_first() -> None:
    store = PrefixStore(4)
    _keep(store, 1, 2)
    _keep(store, 3, 4)
    store.longest((1, 2))
    _keep(store, 5, 6)
    assert (_held(store, 1, 2), _held(store, 3, 4), _held(store, 5, 6)) == ([1, 2], [], [5, 6])


def test_cleared_it_holds_nothing() -> None:
    store = PrefixStore(4)
    _keep(store, 1, 2)
    store.clear()
    assert (store.num_tokens, _held(store, 1, 2)) == (0, [])


def test_no_room_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens"):
        PrefixStore(0)


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple), min_size=1, max_size=12))
def test_equals_a_plain_set_of_prefixes(sequences: list[tuple[int, ...]]) -> None:
    store = PrefixStore(10**6)
    prefixes: set[tuple[int, ...]] = {()}
    for tokens in sequences:
        expected = max(
            (tokens[:length] for length in range(len(tokens) + 1) if tokens[:length] in prefixes), key=len
        )
        assert _held(store, *tokens) == list(expected)
        _keep(store, *tokens)
        prefixes |= {tokens[:length] for length in range(len(tokens) + 1)}
    assert store.num_tokens == len(prefixes) - 1
