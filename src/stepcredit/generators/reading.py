"""Openings before a token is drawn: what is held is taken over, and what begins alike is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Int64

from stepcredit.generators.prompts import Opening
from stepcredit.generators.runner import Runner
from stepcredit.keyvalues.rows import RowCache, States

Tokens = tuple[int, ...]
_LEAST_SAVED_TOKENS = 32
"""Below which a pass of its own takes longer than reading a beginning again."""


def aligned(openings: Sequence[Tokens]) -> tuple[Int64[np.ndarray, "rows width"], Int64[np.ndarray, " rows"]]:
    """Openings as rows that end at one column, and how many unused columns each begins with."""
    width = max(map(len, openings))
    rows = np.zeros((len(openings), width), dtype=np.int64)
    for row, tokens in enumerate(openings):
        rows[row, width - len(tokens) :] = tokens
    return rows, np.asarray([width - len(tokens) for tokens in openings])


def begin(
    runner: Runner, cache: RowCache, openings: Sequence[Tokens], padding: Int64[np.ndarray, " rows"]
) -> int:
    """Put what is held of the openings into the cache's first columns; returns how many columns that is.

    Rows end at one column, so each is left as many tokens to read as the one of which least is held.
    """
    held = [runner.held(tokens) for tokens in openings]
    lengths = [len(tokens) for tokens in openings]
    unread = max(length - part.length for length, part in zip(lengths, held, strict=True))
    columns = max(lengths) - unread
    if columns > 0:
        like = next(part for part in held if part.length)
        cache.begin(len(held), columns, like.parts[0][0].states)
        for row, part in enumerate(held):
            part.copy_to(cache, row, int(padding[row]), columns - int(padding[row]))
    return columns


def read_ahead(runner: Runner, openings: Sequence[Opening]) -> None:
    """Hold what several openings begin with, where the runner keeps anything.

    First prompts that several responses were started after, then those responses that others are the
    beginning of, as the steps of one response are. What is drawn is the same but for rounding.
    """
    if runner.store is None or len(openings) < 2:
        return
    prompts = Counter(
        opening.token_ids[: len(opening.token_ids) - len(opening.prefix_ids)]
        for opening in openings
        if opening.prefix_ids
    )
    sequences = sorted({opening.token_ids for opening in openings})
    begins = [longer[: len(shorter)] == shorter for shorter, longer in pairwise(sequences)]
    longest = [tokens for tokens, goes_on in zip(sequences, [*begins, False], strict=True) if not goes_on]
    _read(runner, [tokens for tokens, count in prompts.items() if count > 1], len(openings))
    if any(begins):
        _read(runner, longest, len(openings))


def _read(runner: Runner, sequences: Sequence[Tokens], used: int) -> None:
    """Read sequences of which ``used`` openings go on, unless nearly all is held."""
    unread = sum(len(tokens) - 1 - runner.held(tokens).length for tokens in sequences)
    if unread < _LEAST_SAVED_TOKENS or used <= len(sequences):
        return
    rows, padding = aligned(sequences)
    cache = RowCache(runner.model.config, *rows.shape)
    columns = begin(runner, cache, sequences, padding)
    with torch.inference_mode():
        runner.forward(cache, rows[:, columns:], padding)
    assert runner.store is not None
    for row, tokens in enumerate(sequences):
        runner.store.keep(tokens, partial(_states, cache, row, int(padding[row])))


def _states(cache: RowCache, row: int, padding: int, first: int, last: int) -> States:
    return cache.read(row, padding + first, padding + last)
