"""Exact expected accuracy of the majority vote over all n-subsets of N responses.

Answers are given as integers that name groups of equal answers; :data:`NO_ANSWER` marks a response without
one. Such a response abstains; where all abstain the vote is wrong. Answers that tie for the most votes are
each chosen with the same probability. An answer is worth the mean outcome of the responses that give it:
within a group every response is equally likely to be in the subset, so this is exact for any outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from stepcredit.stats.subsets import response_mask

NO_ANSWER = -1


def answer_groups(
    answers: Int[np.ndarray, "problems responses"],
    outcomes: Shaped[np.ndarray, "problems responses"],
    num_responses: Int[np.ndarray, " problems"],
) -> tuple[Int[np.ndarray, "problems groups"], Float[np.ndarray, "problems groups"]]:
    """Sizes of the groups of equal answers, largest first, and the mean outcome of each (zeros pad)."""
    problems, width = answers.shape
    valid = response_mask(num_responses, width) & (answers >= 0)
    row, column = np.nonzero(valid)
    num_groups = int(answers[valid].max(initial=-1)) + 1
    key = row * num_groups + answers[row, column]
    shape = (problems, num_groups)
    sizes = np.bincount(key, minlength=problems * num_groups).reshape(shape)
    totals = np.bincount(key, np.asarray(outcomes, dtype=np.float64)[row, column], problems * num_groups)
    means = totals.reshape(shape) / np.maximum(sizes, 1)
    order = np.argsort(-sizes, axis=1, kind="stable")
    return np.take_along_axis(sizes, order, axis=1), np.take_along_axis(means, order, axis=1)


def majority_vote(
    answers: Int[np.ndarray, "problems responses"],
    outcomes: Shaped[np.ndarray, "problems responses"],
    num_responses: Int[np.ndarray, " problems"],
    ns: Sequence[int],
) -> Float[np.ndarray, "sizes problems"]:
    """Expected outcome of the most frequent answer in a random n-subset.

    Args:
        answers: Group of each response's answer, from 0; :data:`NO_ANSWER` abstains.
        outcomes: 1 or 0 for right or wrong.
        num_responses: N of each problem.
        ns: Subset sizes, each at most the smallest N.

    Returns:
        One row for each n.
    """
    sizes, means = answer_groups(answers, outcomes, num_responses)
    expected = np.zeros((len(ns), len(answers)))
    for row, n in zip(expected, ns, strict=True):
        if not 1 <= n <= int(np.min(num_responses)):
            raise ValueError(f"n must be in 1..{int(np.min(num_responses))}, the smallest N; got {n}")
        whole = np.asarray(num_responses) == n
        row[whole] = _vote_of_all(sizes[whole], means[whole])
        if not whole.all():
            row[~whole] = _vote_of_subsets(sizes[~whole], means[~whole], np.asarray(num_responses)[~whole], n)
    return expected


def _vote_of_all(
    sizes: Int[np.ndarray, "problems groups"], means: Float[np.ndarray, "problems groups"]
) -> Float[np.ndarray, " problems"]:
    winners = (sizes == sizes.max(axis=1, keepdims=True, initial=0)) & (sizes > 0)
    return np.asarray((winners * means).sum(axis=1) / np.maximum(winners.sum(axis=1), 1))


def _vote_of_subsets(
    sizes: Int[np.ndarray, "problems groups"],
    means: Float[np.ndarray, "problems groups"],
    num_responses: Int[np.ndarray, " problems"],
    n: int,
) -> Float[np.ndarray, " problems"]:
    """Sum over the winning number of votes v of P(v wins) x mean outcome of the tied winners.

    For each v only the groups of at least v responses can reach it; all other responses can be in the
    subset or not.
    """
    subsets = ConditionedCounts(num_responses, n)
    expected = np.zeros(len(sizes))
    for votes in range(1, min(n, int(sizes.max(initial=0))) + 1):
        can_reach = sizes >= votes
        problems = np.flatnonzero(can_reach.any(axis=1))
        if not len(problems):
            break
        groups = int(can_reach[problems].sum(axis=1).max())
        expected[problems] += subsets.mean_of_tied(
            problems,
            np.where(can_reach, sizes, 0)[problems, :groups],
            means[problems, :groups],
            untied=range(votes),
            tied=range(votes, votes + 1),
        )
    return expected


class ConditionedCounts:
    """How many responses of each group a random n-subset holds.

    The counts are independent binomials with p = n/N, conditioned on their total being n. In this form
    they multiply without overflow, and groups can be taken one after another.

    Args:
        num_responses: N of each problem, each at least n.
    """

    def __init__(self, num_responses: Int[np.ndarray, " problems"], n: int) -> None:
        self.num_responses, self.n = np.asarray(num_responses), n
        population, self._which = np.unique(self.num_responses, return_inverse=True)
        self._table = np.zeros((len(population), int(population.max(initial=0)) + 1, n + 1))
        for index, size in enumerate(population):
            self._table[index, : size + 1] = _binomial_table(int(size), n)

    def mean_of_tied(
        self,
        problems: Int[np.ndarray, " rows"],
        sizes: Int[np.ndarray, "rows groups"],
        means: Float[np.ndarray, "rows groups"],
        *,
        untied: range,
        tied: range,
        absent: Int[np.ndarray, " rows"] | int = 0,
    ) -> Float[np.ndarray, " rows"]:
        """P(each group's count is in ``untied`` or ``tied``, some tied) x mean outcome of the tied groups.

        A dynamic programme over the groups tracks the responses used and how many groups are tied.

        Args:
            problems: The problem that each row is about.
            sizes: Group sizes; groups of size 0 take no part.
            means: Outcome of each group.
            untied: Counts of a group that is not tied, from 0.
            tied: Counts of a group that is tied; they follow those of ``untied``.
            absent: Further responses of which the subset must hold none; any number of the remaining
                ones may be in it.
        """
        which, n = self._which[problems], self.n
        taking_part = sizes > 0
        most_tied = min(sizes.shape[1], n // tied.start)
        # state[0]: probability; state[1]: probability x sum of the tied groups' outcomes
        state = np.zeros((2, len(sizes), n + 1, most_tied + 1))
        state[0, :, 0, 0] = 1.0
        for group in range(sizes.shape[1]):
            active = taking_part[:, group]
            most = min(tied.stop - 1, n, int(sizes[:, group].max(initial=0)))
            weights = np.where(active[:, None], self._table[which, sizes[:, group], : most + 1], 0.0)
            weights[~active, 0] = 1.0
            following = state * weights[:, 0, None, None]
            for count in range(1, most + 1):
                moved = state[:, :, :-count] * weights[:, count, None, None]
                if count in untied:
                    following[:, :, count:] += moved
                else:
                    following[:, :, count:, 1:] += moved[..., :-1]
                    following[1, :, count:, 1:] += moved[0, ..., :-1] * means[:, group, None, None]
            state = following
        value = (state[1, :, :, 1:] / np.arange(1, most_tied + 1)).sum(axis=2)
        rest = self.num_responses[problems] - sizes.sum(axis=1) - absent
        outside = (1.0 - n / self.num_responses[problems]) ** absent
        tail = self._table[which, rest][:, ::-1]
        total = self._table[which, self.num_responses[problems], n]
        return np.asarray((value * tail).sum(axis=1) * outside / total)


def _binomial_table(population: int, n: int) -> Float[np.ndarray, "sizes votes"]:
    """P(j of k are in), each independently with p = n/N: row k = 0..N, column j = 0..n."""
    probability = n / population
    size = np.arange(population + 1)[:, None]
    count = np.arange(n + 1)[None, :]
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, population + 1)))])
    possible = count <= size
    left_out = np.where(possible, size - count, 0)
    log_choose = log_factorial[size] - log_factorial[count] - log_factorial[left_out]
    if probability == 1.0:
        return np.where(possible & (left_out == 0), 1.0, 0.0)
    log_probability = log_choose + count * np.log(probability) + left_out * np.log1p(-probability)
    return np.where(possible, np.exp(log_probability), 0.0)
