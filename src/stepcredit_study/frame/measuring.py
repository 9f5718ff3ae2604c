"""Scores of a set of responses turned into the quantities that experiments report."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepcredit.checkpoints import PRMCard
from stepcredit.data import read_rollouts
from stepcredit.evaluation.labelled_steps import LabelledSteps, join_labels
from stepcredit.evaluation.localisation import first_error_classes, minimum_at_last, shares_of_minimum
from stepcredit.evaluation.samples import Samples, Scored, group, scored, without_bulk
from stepcredit.evaluation.score_columns import REWARD, ScoreColumns, read_score_columns
from stepcredit.stats import VoteSubsets, auc, best_of_n, majority_vote, pass_at_n, sigmoid
from stepcredit.types import Rollout
from stepcredit_study.frame.world import Responses

AGGREGATES = ("min", "mean", "sum", "last")
"""What may stand for a response; which one is chosen on development problems."""

_FACT = re.compile(r"([0-9]+[-+*<>][0-9])=")


class TestBed:
    """A generator's responses, and what scores make of them.

    Args:
        responses: Graded ones; scores are of the distinct ones.
    """

    __test__ = False

    def __init__(self, responses: Responses, ns: tuple[int, ...]) -> None:
        self.responses = responses
        self.rollouts = [without_bulk(rollout) for rollout in read_rollouts(responses.graded)]
        self.samples: Samples = group(self.rollouts)
        smallest = int(self.samples.num_responses.min())
        self.ns = tuple(n for n in ns if n <= smallest)

    @cached_property
    def distinct(self) -> list[Rollout]:
        """The scored responses."""
        return [without_bulk(rollout) for rollout in read_rollouts(self.responses.distinct)]

    def scored(self, scores: Path) -> Scored:
        """Every response with the scores of its equal among the distinct ones."""
        columns = read_score_columns(scores)
        places = {identifier: row for row, identifier in enumerate(columns.ids)}
        row_of = {(rollout.prompt_id, rollout.response): places[rollout.id] for rollout in self.distinct}
        rows = {rollout.id: row_of[rollout.prompt_id, rollout.response] for rollout in self.rollouts}
        return scored("scores", columns, rows, self.samples)

    def best_of_n(self, scores: NDArray[np.float64]) -> dict[int, NDArray[np.float64]]:
        """Each n to each problem's expected accuracy, over all subsets of n responses."""
        samples = self.samples
        accuracy = best_of_n(scores, samples.correct, samples.num_responses, self.ns)
        return dict(zip(self.ns, accuracy, strict=True))

    def accuracy(self, scores: Path, aggregate: str) -> dict[int, float]:
        """Each n to the mean accuracy of best-of-n by an aggregate."""
        return _means(self.best_of_n(self.scored(scores).scores[aggregate]))

    def majority(self) -> dict[int, float]:
        """Each n to the accuracy of plain voting."""
        samples = self.samples
        accuracy = majority_vote(samples.answers, samples.correct, samples.num_responses, self.ns)
        return _means(dict(zip(self.ns, accuracy, strict=True)))

    def weighted_vote(self, scores: Path, aggregate: str, *, temperature: float = 1.0) -> dict[int, float]:
        """Each n to the accuracy of the vote in which a response weighs sigmoid(score / temperature)."""
        weights = sigmoid(self.scored(scores).scores[aggregate] / temperature)
        samples = self.samples
        accuracy = {}
        for n in self.ns:
            subsets = VoteSubsets(samples.answers, samples.correct, samples.num_responses, n, seed=n)
            accuracy[n] = float(subsets.vote(weights)[0].expected.mean())
        return accuracy

    def pass_at(self, n: int) -> float:
        """Accuracy of an oracle; at 1, of a single response."""
        samples = self.samples
        return float(pass_at_n(samples.correct.sum(axis=1), samples.num_responses, n).mean())

    def outcome_auc(self, scores: Path, aggregate: str = REWARD) -> float:
        """Right against wrong distinct responses."""
        columns = read_score_columns(scores)
        correct = {rollout.id: bool(rollout.correct) for rollout in self.distinct}
        positive = np.array([correct[identifier] for identifier in columns.ids])
        return float(auc(columns.scores[aggregate], positive))

    def steps(self, scores: Path) -> LabelledSteps:
        """The distinct responses' steps with the lab's true labels."""
        from stepcredit.lab.oracles import label_steps

        labelled = (replace(rollout, step_labels=label_steps(rollout)) for rollout in self.distinct)
        return join_labels(labelled, read_score_columns(scores))

    def step_auc(self, scores: Path) -> float:
        """First wrong steps against right steps before any error, by step reward (lab only)."""
        steps = self.steps(scores)
        right, first_wrong = first_error_classes(steps)
        used = right | first_wrong
        return float(auc(-steps.rewards[used], first_wrong[used]))

    def lowest_is_first_wrong(self, scores: Path) -> float:
        """Share of responses with a wrong step whose lowest reward is the first wrong one's (lab only)."""
        steps = self.steps(scores)
        lowest = shares_of_minimum(steps.rewards, steps.offsets)
        failed = steps.first_wrong >= 0
        return float(lowest[steps.offsets[:-1][failed] + steps.first_wrong[failed]].mean())


def minimum_is_last(columns: ScoreColumns) -> float:
    """Share of the responses of two steps or more whose lowest step reward is the last one's."""
    at_last, several = minimum_at_last(columns.step_rewards, columns.step_offsets)
    return float(at_last[several].mean())


def choose_aggregate(dev: Path, scores: Path) -> str:
    """The aggregate with the best best-of-n accuracy on development problems; the first of equals."""
    accuracy = development_accuracies(dev, scores)
    return max(accuracy, key=lambda name: accuracy[name])


def development_accuracies(dev: Path, scores: Path) -> dict[str, float]:
    """Aggregate to its best-of-4 accuracy on development problems (of fewer where there are fewer)."""
    bed = TestBed(Responses(dev, dev), ())
    scored = bed.scored(scores)
    bed.ns = (min(4, int(bed.samples.num_responses.min())),)
    known = [name for name in AGGREGATES if name in scored.scores] or [REWARD]
    return {name: float(bed.best_of_n(scored.scores[name])[bed.ns[0]].mean()) for name in known}


def beta_of(model: Path) -> float:
    """The scale of an implicit reward model's log-ratio."""
    beta = PRMCard.read(model).beta
    assert beta is not None, "an implicit reward model has a beta"
    return beta


def sightings(graded: Path) -> float:
    """How often a fact of a lab, such as ``7*8``, stands in the responses: mean over those that do."""
    counts = Counter(fact for rollout in read_rollouts(graded) for fact in _FACT.findall(rollout.response))
    return counts.total() / max(1, len(counts))


def share_right(graded: Path) -> float:
    """Share of right responses."""
    return float(np.mean([bool(rollout.correct) for rollout in read_rollouts(graded)]))


def _means(accuracies: dict[int, NDArray[np.float64]]) -> dict[int, float]:
    return {n: float(values.mean()) for n, values in accuracies.items()}
