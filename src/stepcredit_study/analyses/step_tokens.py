"""What a file of scores with token rewards says of each step: the mean over its tokens, and their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from stepcredit.data import read_scores

Steps = Float[np.ndarray, " steps"]


def means_and_lengths(path: Path) -> dict[str, tuple[Steps, Steps]]:
    """Of each response, by id: mean token reward and number of tokens of each step.

    A token belongs to the step that it ends in, the last to the last.

    Args:
        path: Scores that were written with ``tokens``.
    """
    known: dict[str, tuple[Steps, Steps]] = {}
    for score in read_scores(path):
        assert score.token_ends is not None, f"{path} was scored without token rewards"
        ends = [step.end for step in score.steps]
        step = np.minimum(np.searchsorted(ends, score.token_ends), len(ends) - 1)
        sums = np.bincount(step, weights=score.token_rewards, minlength=len(ends))
        lengths = np.bincount(step, minlength=len(ends)) * 1.0
        known[score.id] = sums / np.maximum(lengths, 1), lengths
    return known
