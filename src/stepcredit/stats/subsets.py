"""Exact expectations over all n-subsets of N sampled responses.

A published best-of-n figure usually takes the first n of N samples: one subset of very many. The same N
samples determine the expectation over all of them, at no cost and with far less variance (the estimator
that Chen et al. 2021 use for pass@k, arXiv:2107.03374, extended to selection by a score).

Arrays hold one problem a row. Problems may have different numbers of responses: rows are padded at the
end and ``num_responses`` says how many entries count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

PADDING_SCORE = -np.inf


def rank_weights(num_responses: int, n: int) -> Float[np.ndarray, " responses"]:
    """Probability that the best of a random n-subset is the response of rank i.

    The response of rank i (0 is best) is the best of a subset that holds it and n-1 of the N-1-i worse ones:
    ``C(N-1-i, n-1) / C(N, n)``, computed by a recurrence in which nothing overflows.

    Raises:
        ValueError: n is not in 1..num_responses.
    """
    if not 1 <= n <= num_responses:
        raise ValueError(f"n must be in 1..{num_responses}, the number of responses; got {n}")
    rank = np.arange(num_responses - 1)
    ratios = np.maximum(num_responses - n - rank, 0) / (num_responses - 1 - rank)
    return n / num_responses * np.concatenate([[1.0], np.cumprod(ratios)])


def rank_weight_rows(
    num_responses: Int[np.ndarray, " problems"], n: int, width: int
) -> Float[np.ndarray, "problems width"]:
    """:func:`rank_weights` of each problem, padded with zeros to ``width``."""
    sizes, which = np.unique(num_responses, return_inverse=True)
    table = np.zeros((len(sizes), width))
    for row, size in enumerate(sizes):
        table[row, :size] = rank_weights(int(size), n)
    return table[which]


def response_mask(
    num_responses: Int[np.ndarray, " problems"], width: int
) -> Bool[np.ndarray, "problems width"]:
    """True where an entry of a padded array is a response."""
    return np.arange(width) < np.asarray(num_responses)[:, None]


def pass_at_n(
    num_correct: Int[np.ndarray, " problems"], num_responses: Int[np.ndarray, " problems"], n: int
) -> Float[np.ndarray, " problems"]:
    """Probability that a random n-subset holds a right response: ``1 - C(N-c, n) / C(N, n)``.

    This is best-of-n by an oracle. With n = 1 it is the share of right responses.
    """
    width = int(np.max(num_responses, initial=0))
    weights = rank_weight_rows(num_responses, n, width)
    return np.asarray(np.sum(weights, axis=1, where=response_mask(num_correct, width)))


def average_over_ties(
    scores: Float[np.ndarray, "problems responses"], outcomes: Shaped[np.ndarray, "problems responses"]
) -> Float[np.ndarray, "problems responses"]:
    """Outcomes in order of falling score, each replaced by the mean outcome of all with the same score."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    outcomes = np.take_along_axis(np.asarray(outcomes, dtype=np.float64), order, axis=1)
    starts_tie = np.ones(ranked.shape, dtype=bool)
    starts_tie[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    # Without ties, by far the most frequent case, the outcomes stand as they are.
    if starts_tie.all():
        return outcomes
    starts = np.flatnonzero(starts_tie)
    sizes = np.diff(np.append(starts, ranked.size))
    means = np.add.reduceat(outcomes.ravel(), starts) / sizes
    return np.repeat(means, sizes).reshape(ranked.shape)


def best_of_n(
    scores: Float[np.ndarray, "problems responses"],
    outcomes: Shaped[np.ndarray, "problems responses"],
    num_responses: Int[np.ndarray, " problems"],
    ns: Sequence[int],
) -> Float[np.ndarray, "sizes problems"]:
    """Expected outcome of the response with the highest score in a random n-subset.

    Where several share the highest score, each is chosen with the same probability.

    Args:
        scores: Finite; higher is better.
        outcomes: What the chosen response is worth: 1 or 0 for right or wrong, or any other quantity,
            such as the score itself.
        num_responses: N of each problem.
        ns: Subset sizes, each at most the smallest N.

    Returns:
        One row for each n.
    """
    valid = response_mask(num_responses, scores.shape[1])
    ranked = average_over_ties(
        np.where(valid, scores, PADDING_SCORE), np.where(valid, outcomes, 0).astype(np.float64)
    )
    return np.stack([(ranked * rank_weight_rows(num_responses, n, scores.shape[1])).sum(axis=1) for n in ns])


def best_of_first_n(
    scores: Float[np.ndarray, "problems responses"],
    outcomes: Shaped[np.ndarray, "problems responses"],
    ns: Sequence[int],
) -> Float[np.ndarray, "sizes problems"]:
    """Expected outcome of the highest-scored of the first n responses, as published evaluators report it.

    Ties are split evenly. Each n is at most the smallest number of responses.
    """
    chosen = []
    for n in ns:
        head = scores[:, :n]
        best = head == head.max(axis=1, keepdims=True)
        chosen.append((best * outcomes[:, :n]).sum(axis=1) / best.sum(axis=1))
    return np.stack(chosen)
