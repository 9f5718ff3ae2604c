"""Log-probabilities of others are not believed: what cannot be one is an error that names the token."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import DataError
from stepcredit.types import Encoded
from stepcredit.wording import quantity

_ROUNDING = 1e-4
"""Nats above 0 that rounding explains: a certain token, at a server that adds up in 16 bits."""

_CLAMPED = -9999.0
"""What vLLM writes for minus infinity."""


class TokenError(DataError):
    """What a source says of a token cannot be.

    Args:
        problem: What is wrong, source and token included.
        item: The sequence, by which the scorer finds the row.
    """

    def __init__(self, problem: str, item: Encoded, *, hint: str) -> None:
        super().__init__(problem, hint=hint)
        self.item = item


def check_log_probs(
    values: NDArray[np.float32], item: Encoded, *, source: str, spell: Callable[[int], str] | None = None
) -> NDArray[np.float32]:
    """The values, if they are log-probabilities of the scored tokens of ``item``; in nats.

    Args:
        values: One for each scored token.
        spell: A token id as text, for messages.

    Raises:
        TokenError: There are not as many as tokens, one is missing, above 0 or minus infinity, or all of
            several are exactly 0.
    """

    def named(place: int) -> str:
        token = item.scored_ids[place]
        text = "" if spell is None else f" {spell(token)!r}"
        return f"{source} gives scored token {place + 1:,} of {item.num_scored:,}{text} (id {token})"

    missing = np.flatnonzero(np.isnan(values))
    if values.size != item.num_scored or missing.size:
        count = values.size - missing.size
        first = f": {named(int(missing[0]))} none" if values.size == item.num_scored else ""
        raise TokenError(
            f"{source} gives {quantity(count, 'log-probability', 'log-probabilities')} for "
            f"{quantity(item.num_scored, 'scored token')}{first}",
            item,
            hint="check that its model and tokenizer are those of --prm",
        )
    above = np.flatnonzero(values > _ROUNDING)
    if above.size:
        raise TokenError(
            f"{named(int(above[0]))} a log-probability of {values[above[0]]:g}, which is above 0",
            item,
            hint="the server computes something else; try another --server-interface or another server",
        )
    impossible = np.flatnonzero(values <= _CLAMPED)
    if impossible.size:
        raise TokenError(
            f"{named(int(impossible[0]))} a probability of 0 (log-probability {values[impossible[0]]:g})",
            item,
            hint="check that its model is the right one, and that no temperature, top-p or mask is applied",
        )
    if item.num_scored > 1 and not values.any():
        raise TokenError(
            f"{source} gives all {item.num_scored:,} scored tokens a log-probability of exactly 0",
            item,
            hint="a prefix cache leaves these out; switch it off (vLLM: --no-enable-prefix-caching)",
        )
    return np.minimum(values, np.float32(0.0))
