"""Expected accuracy of votes in which every response adds a weight to its answer.

Which answer wins over all n-subsets has a closed form where an answer is worth its best response (``max``),
and by enumeration where there are few subsets (n = 1, n = N, small N). Elsewhere seeded random subsets
stand for all: shuffles of the responses, each cut into disjoint subsets, so that every response is in
equally many (from 64 responses this halves the variance of as many independent subsets). Subsets are drawn
for each problem by itself, so a bootstrap over problems has their error in its intervals; the result
carries it alone as well.

As in :mod:`stepcredit.stats.votes`: a response without an answer abstains, a vote in which all abstain is
wrong, answers that tie are chosen with equal probability, an answer is worth its responses' mean outcome.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from stepcredit.stats.subsets import rank_weight_rows, response_mask
from stepcredit.stats.votes import NO_ANSWER, ConditionedCounts

Combine = Literal["sum", "mean"]

# More subsets than this are drawn, not enumerated: the work grows with each of them.
_MOST_ENUMERATED = 2048
_ROWS_AT_ONCE = 512
# Sums of equal weights in another order differ by rounding, which grows with what is summed; that must not
# break a tie, nor make one of weights that are all small.
_TIE_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class VoteEstimate:
    """Expected outcome of a vote.

    Attributes:
        expected: One value per problem, shape (problems,).
        resampling_error: Standard error of the mean over problems that comes from random subsets; 0
            where all subsets were counted. It is part of what a bootstrap over problems shows.
    """

    expected: Float[np.ndarray, " problems"]
    resampling_error: float


class VoteSubsets:
    """The n-subsets over which weighted votes are averaged; the same for every set of weights.

    Args:
        answers: Group of each response's answer, from 0; -1 abstains.
        outcomes: 1 or 0 for right or wrong.
        num_responses: N of each problem.
        n: Size of the subsets, at most the smallest N.
        num_draws: Random subsets per problem where there are too many to count them all, at least 2; one
            shuffle's worth more where they do not fill the last shuffle.
    """

    def __init__(
        self,
        answers: Int[np.ndarray, "problems responses"],
        outcomes: Shaped[np.ndarray, "problems responses"],
        num_responses: Int[np.ndarray, " problems"],
        n: int,
        *,
        num_draws: int = 100,
        seed: int = 0,
    ) -> None:
        num_responses = np.asarray(num_responses)
        if not 1 <= n <= int(num_responses.min()):
            raise ValueError(f"n must be in 1..{int(num_responses.min())}, the smallest N; got {n}")
        self.num_problems, width = len(answers), answers.shape[1]
        valid = response_mask(num_responses, width)
        answered = valid & (answers != NO_ANSWER)
        # Responses in order of their answers, so that a sorted subset has equal answers side by side.
        big = np.iinfo(np.int64).max
        order = np.argsort(np.where(answered, answers, big), axis=1, kind="stable")
        position = np.empty_like(order)
        np.put_along_axis(position, order, np.broadcast_to(np.arange(width), order.shape), axis=1)
        subsets = _subsets(num_responses, n, num_draws, seed)
        self._draw_problem, self._shuffle = subsets.problem, subsets.shuffle
        rows = self._draw_problem[:, None]
        responses = order[rows, np.sort(position[rows, subsets.members], axis=1)]
        voting = answered[rows, responses]
        draw, member = np.nonzero(voting)
        chosen = responses[draw, member]
        problem = self._draw_problem[draw]
        self._members = problem * width + chosen
        group = answers[problem, chosen]
        starts = np.ones(len(draw), dtype=bool)
        starts[1:] = (draw[1:] != draw[:-1]) | (group[1:] != group[:-1])
        self._starts = np.flatnonzero(starts)
        self._sizes = np.diff(np.append(self._starts, len(draw)))
        pair_draw = draw[self._starts]
        self._pair_outcome = _group_means(answers, outcomes, answered)[problem, group][self._starts]
        first_pair = np.ones(len(pair_draw), dtype=bool)
        first_pair[1:] = pair_draw[1:] != pair_draw[:-1]
        self._draw_starts = np.flatnonzero(first_pair)
        self._pairs_a_draw = np.diff(np.append(self._draw_starts, len(pair_draw)))
        self._voting_draws = pair_draw[self._draw_starts]
        self._num_draws = np.bincount(self._draw_problem, minlength=self.num_problems)

    def vote(
        self, weights: Float[np.ndarray, "problems responses"], combine: Sequence[Combine] = ("sum",)
    ) -> list[VoteEstimate]:
        """Expected outcome of the answer whose responses' weights have the greatest sum, or mean."""
        if not len(self._members):
            return [VoteEstimate(np.zeros(self.num_problems), 0.0) for _ in combine]
        added = np.asarray(weights, dtype=np.float64).ravel()[self._members]
        sums, sizes = np.add.reduceat(added, self._starts), np.add.reduceat(np.abs(added), self._starts)
        rounding = _TIE_TOLERANCE * np.add.reduceat(sizes, self._draw_starts)
        return [self._winners(sums if how == "sum" else sums / self._sizes, rounding) for how in combine]

    def _winners(
        self, worth: Float[np.ndarray, " pairs"], rounding: Float[np.ndarray, " draws"]
    ) -> VoteEstimate:
        best = np.maximum.reduceat(worth, self._draw_starts) - rounding
        wins = worth >= np.repeat(best, self._pairs_a_draw)
        values = np.add.reduceat(wins * self._pair_outcome, self._draw_starts)
        values /= np.add.reduceat(wins, self._draw_starts, dtype=np.int64)
        problem = self._draw_problem[self._voting_draws]
        expected = np.bincount(problem, values, self.num_problems) / self._num_draws
        return VoteEstimate(expected, self._resampling_error(values))

    def _resampling_error(self, values: Float[np.ndarray, " draws"]) -> float:
        """From the spread over shuffles: subsets of one shuffle exclude each other."""
        if self._shuffle is None:
            return 0.0
        num_shuffles = int(self._shuffle[-1]) + 1
        shuffle_problem = np.zeros(num_shuffles, dtype=np.int64)
        shuffle_problem[self._shuffle] = self._draw_problem
        voted = np.bincount(self._shuffle[self._voting_draws], values, num_shuffles)
        means = voted / np.bincount(self._shuffle, minlength=num_shuffles)
        counts = np.bincount(shuffle_problem, minlength=self.num_problems)
        centres = np.bincount(shuffle_problem, means, self.num_problems) / counts
        squares = np.bincount(shuffle_problem, (means - centres[shuffle_problem]) ** 2, self.num_problems)
        variance = float(np.sum(squares / (counts * (counts - 1))))
        return math.sqrt(variance) / self.num_problems


@dataclass(frozen=True, slots=True)
class _Subsets:
    """Subsets of the responses of several problems.

    Attributes:
        shuffle: Which shuffle each random subset was cut from, numbered over all problems; ``None`` where
            the subsets are all that there are.
    """

    members: Int[np.ndarray, "draws n"]
    problem: Int[np.ndarray, " draws"]
    shuffle: Int[np.ndarray, " draws"] | None = None


def _subsets(num_responses: Int[np.ndarray, " problems"], n: int, num_draws: int, seed: int) -> _Subsets:
    all_of_them = math.comb(int(num_responses.max()), n) <= max(num_draws, _MOST_ENUMERATED)
    generator = np.random.default_rng(seed)
    members, problems, shuffles = [], [], []
    num_shuffles = 0
    for size in np.unique(num_responses):
        rows = np.flatnonzero(num_responses == size)
        if all_of_them:
            combinations = np.array(list(itertools.combinations(range(int(size)), n)))
            drawn = np.broadcast_to(combinations, (len(rows), *combinations.shape))
        else:
            drawn = _disjoint_subsets(len(rows), int(size), n, num_draws, generator)
            each_problem = len(rows) * drawn.shape[1]
            shuffles.append(num_shuffles + np.repeat(np.arange(each_problem), drawn.shape[2]))
            num_shuffles += each_problem
            drawn = drawn.reshape(len(rows), -1, n)
        members.append(drawn.reshape(-1, n))
        problems.append(np.repeat(rows, drawn.shape[1]))
    return _Subsets(
        np.concatenate(members), np.concatenate(problems), np.concatenate(shuffles) if shuffles else None
    )


def _disjoint_subsets(
    num_problems: int, size: int, n: int, num_draws: int, generator: np.random.Generator
) -> Int[np.ndarray, "problems shuffles parts n"]:
    """Shuffles of ``size`` responses, cut into disjoint n-subsets, or into what n-subsets leave out."""
    smaller = min(n, size - n) or size
    parts = size // smaller
    # Two shuffles at least, to tell the error from their spread.
    shuffles = max(2, -(-num_draws // parts))
    order = np.argsort(generator.random((num_problems, shuffles, size), dtype=np.float32), axis=2)
    blocks = order[:, :, : parts * smaller].reshape(num_problems, shuffles, parts, smaller)
    if smaller == n:
        return blocks
    inside = np.ones((num_problems, shuffles, parts, size), dtype=bool)
    np.put_along_axis(inside, blocks, False, axis=3)
    return np.nonzero(inside)[3].reshape(num_problems, shuffles, parts, n)


def _group_means(
    answers: Int[np.ndarray, "problems responses"],
    outcomes: Shaped[np.ndarray, "problems responses"],
    answered: Bool[np.ndarray, "problems responses"],
) -> Float[np.ndarray, "problems groups"]:
    num_groups = int(answers[answered].max(initial=0)) + 1
    row, column = np.nonzero(answered)
    key = row * num_groups + answers[row, column]
    counts = np.bincount(key, minlength=len(answers) * num_groups)
    totals = np.bincount(key, np.asarray(outcomes, dtype=np.float64)[row, column], len(counts))
    return np.asarray(totals / np.maximum(counts, 1)).reshape(len(answers), num_groups)


def max_vote(
    answers: Int[np.ndarray, "problems responses"],
    scores: Float[np.ndarray, "problems responses"],
    outcomes: Shaped[np.ndarray, "problems responses"],
    num_responses: Int[np.ndarray, " problems"],
    ns: Sequence[int],
) -> Float[np.ndarray, "sizes problems"]:
    """Expected outcome of the answer whose best response scores highest in a random n-subset; exact.

    It differs from best-of-n where responses without an answer score highest, and where responses with
    different answers tie for the highest score (then each answer is as likely, however many give it).
    """
    num_responses = np.asarray(num_responses)
    answered = response_mask(num_responses, scores.shape[1]) & (answers != NO_ANSWER)
    ranked = np.where(answered, scores, -np.inf)
    order = np.argsort(-ranked, axis=1, kind="stable")
    ranked = np.take_along_axis(ranked, order, axis=1)
    groups = np.take_along_axis(np.where(answered, answers, NO_ANSWER), order, axis=1)
    answered = np.take_along_axis(answered, order, axis=1)
    means = _group_means(answers, outcomes, np.take_along_axis(answered, np.argsort(order, axis=1), axis=1))
    worth = np.where(answered, np.take_along_axis(means, np.maximum(groups, 0), axis=1), 0.0)

    same = (ranked[:, 1:] == ranked[:, :-1]) & answered[:, 1:]
    mixed = same & (groups[:, 1:] != groups[:, :-1])
    classes = _mixed_ties(ranked, answered, mixed)
    in_mixed = np.zeros(ranked.shape, dtype=bool)
    for problem, start, stop in classes:
        in_mixed[problem, start:stop] = True
    expected = []
    for n in ns:
        weights = rank_weight_rows(num_responses, n, scores.shape[1])
        row = (weights * np.where(in_mixed, 0.0, worth)).sum(axis=1)
        for chunk in range(0, len(classes), _ROWS_AT_ONCE):
            _add_mixed_ties(row, classes[chunk : chunk + _ROWS_AT_ONCE], groups, means, num_responses, n)
        expected.append(row)
    return np.stack(expected)


def _mixed_ties(
    ranked: Float[np.ndarray, "problems responses"],
    answered: Bool[np.ndarray, "problems responses"],
    mixed: Bool[np.ndarray, "problems neighbours"],
) -> list[tuple[int, int, int]]:
    """(problem, first rank, one past the last rank) of every run of equal scores with different answers."""
    runs: dict[tuple[int, int], tuple[int, int, int]] = {}
    for problem, place in zip(*np.nonzero(mixed), strict=True):
        tied = np.flatnonzero((ranked[problem] == ranked[problem, place]) & answered[problem])
        runs[int(problem), int(tied[0])] = (int(problem), int(tied[0]), int(tied[-1]) + 1)
    return list(runs.values())


def _add_mixed_ties(
    expected: Float[np.ndarray, " problems"],
    classes: Sequence[tuple[int, int, int]],
    groups: Int[np.ndarray, "problems responses"],
    means: Float[np.ndarray, "problems groups"],
    num_responses: Int[np.ndarray, " problems"],
    n: int,
) -> None:
    """Add what each run of ties contributes: none above it in the subset, its present answers share."""
    tables = [np.unique(groups[problem, start:stop], return_counts=True) for problem, start, stop in classes]
    widest = max(len(names) for names, _ in tables)
    sizes = np.zeros((len(classes), widest), dtype=np.int64)
    worth = np.zeros((len(classes), widest))
    for row, ((names, counts), (problem, _, _)) in enumerate(zip(tables, classes, strict=True)):
        sizes[row, : len(names)] = counts
        worth[row, : len(names)] = means[problem, names]
    problems = np.array([problem for problem, _, _ in classes])
    above = np.array([start for _, start, _ in classes])
    values = ConditionedCounts(num_responses, n).mean_of_tied(
        problems, sizes, worth, untied=range(1), tied=range(1, n + 1), absent=above
    )
    np.add.at(expected, problems, values)
