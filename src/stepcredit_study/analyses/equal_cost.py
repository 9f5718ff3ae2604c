"""Best-of-n at the cost of a search: accuracy of picking among as many responses as the same cost buys.

A search of a problem took so many generated tokens, and so many operations. Picking has its own responses
to that problem; how many of them cost as much is rarely a whole number, so accuracy is interpolated between
the two next to it. Each accuracy is the exact expectation over all subsets of the responses.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stepcredit.data import read_rollouts
from stepcredit.evaluation.samples import Samples, group
from stepcredit.pipelines.search import trees_path
from stepcredit.runs import read_manifest
from stepcredit.stats import VoteSubsets, best_of_n
from stepcredit_study.frame.world import Searched

UNREAD = -1e9
"""Worth of a response that could not be scored: it is never preferred."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What searches of some problems took, one number per problem.

    Attributes:
        problem_ids: In the order of the other fields.
        generated: Tokens drawn.
        operations: Floating-point operations of drawing them, and of scoring what is read for the first time.
    """

    problem_ids: tuple[str, ...]
    generated: NDArray[np.float64]
    operations: NDArray[np.float64]


def costs_of(search: Searched) -> Costs:
    """What a search took, from its trees and its manifest."""
    with open(trees_path(search.rollouts), encoding="utf-8") as lines:
        trees = [json.loads(line) for line in lines]
    drawing, scoring = parameters_of(search)
    generated = np.array([tree["generated_tokens"] for tree in trees], dtype=np.float64)
    scored = np.array([tree["scored_tokens"] for tree in trees], dtype=np.float64)
    return Costs(
        problem_ids=tuple(tree["prompt_id"] for tree in trees),
        generated=generated,
        operations=2 * (drawing * generated + scoring * scored),
    )


def parameters_of(search: Searched) -> tuple[int, int]:
    """Parameters that run for each drawn token, and for each scored one."""
    ledger = (read_manifest(search.rollouts) or {})["ledger"]
    return ledger["model_parameters"], ledger["scoring_parameters"]


class Picking:
    """Best-of-n of some problems, n from 1 to all responses.

    Args:
        search: A ``best-of-n`` search, as wide as picking is ever asked about.
    """

    def __init__(self, search: Searched) -> None:
        rollouts = list(read_rollouts(search.graded))
        self.samples: Samples = group(rollouts)
        samples = self.samples
        places = {name: place for place, name in enumerate(samples.problem_ids)}
        worths: list[list[float]] = [[] for _ in places]
        lengths: list[list[float]] = [[] for _ in places]
        for rollout in rollouts:
            worth = rollout.extras["search"]["worth"]
            worths[places[rollout.prompt_id]].append(UNREAD if worth is None else worth)
            lengths[places[rollout.prompt_id]].append(rollout.extras["num_generated_tokens"])
        self.worths, self.lengths = samples.of_responses(worths), samples.of_responses(lengths)
        self._parameters = parameters_of(search)

    @cached_property
    def largest(self) -> int:
        """Most responses that can be picked from."""
        return int(self.samples.num_responses.min())

    @cached_property
    def accuracies(self) -> NDArray[np.float64]:
        """Expected accuracy, shape (n from 1 on, problems)."""
        samples = self.samples
        return np.asarray(
            best_of_n(self.worths, samples.correct, samples.num_responses, range(1, self.largest + 1))
        )

    @cached_property
    def tokens(self) -> NDArray[np.float64]:
        """Expected generated tokens of n responses, shape (n from 1 on, problems)."""
        means = self.lengths.sum(axis=1) / self.samples.num_responses
        return np.asarray(np.arange(1, self.largest + 1)[:, None] * means[None, :])

    @cached_property
    def operations(self) -> NDArray[np.float64]:
        """Expected operations of drawing n responses and scoring the distinct ones among them."""
        drawing, scoring = self._parameters
        scored = np.stack(
            [
                distinct_tokens([rollout.response for rollout in responses], lengths, self.largest)
                for responses, lengths in zip(self.samples.responses, self.lengths, strict=True)
            ],
            axis=1,
        )
        return 2 * (drawing * self.tokens + scoring * scored)

    def at_tokens(self, costs: Costs) -> float:
        """Accuracy at as many generated tokens, problem by problem."""
        return self._at(self.tokens, costs, costs.generated)

    def at_operations(self, costs: Costs) -> float:
        """Accuracy at as many operations, problem by problem."""
        return self._at(self.operations, costs, costs.operations)

    def vote(self, n: int, temperature: float) -> float:
        """Accuracy of the vote of n responses in which each weighs exp(worth / temperature)."""
        samples = self.samples
        # Differences are taken first, so that no exponential overflows.
        differences = self.worths - self.worths.max(axis=1, keepdims=True)
        subsets = VoteSubsets(samples.answers, samples.correct, samples.num_responses, n, seed=n)
        return float(subsets.vote(np.exp(differences / temperature))[0].expected.mean())

    def coverage(self, n: int) -> float:
        """How often a right response is among n."""
        samples = self.samples
        any_right = best_of_n(samples.correct.astype(np.float64), samples.correct, samples.num_responses, [n])
        return float(any_right.mean())

    def _at(self, own: NDArray[np.float64], costs: Costs, spent: NDArray[np.float64]) -> float:
        place = {name: number for number, name in enumerate(self.samples.problem_ids)}
        problems = [place[name] for name in costs.problem_ids]
        return float(
            np.mean(
                [
                    np.interp(amount, own[:, problem], self.accuracies[:, problem])
                    for problem, amount in zip(problems, spent, strict=True)
                ]
            )
        )


def distinct_tokens(responses: list[str], lengths: NDArray[np.float64], largest: int) -> NDArray[np.float64]:
    """Expected tokens of the distinct responses among n of them, n from 1 to ``largest``.

    Args:
        lengths: Tokens of each; more may follow.
        largest: At most the number of responses.
    """
    copies = Counter(responses)
    length_of = dict(zip(responses, lengths, strict=False))
    total = len(responses)
    numbers = np.arange(largest)
    expected = np.zeros(largest)
    for response, count in copies.items():
        # None of the copies is among n: drawn one after another, each time from those that are left.
        missed = np.cumprod(np.maximum(total - count - numbers, 0) / (total - numbers))
        expected += length_of[response] * (1 - missed)
    return expected
