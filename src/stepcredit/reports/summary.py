"""What a demo measured, and its ``summary.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepcredit.data import read_rollouts
from stepcredit.evaluation.best_of_n_evaluation import BestOfNEvaluation
from stepcredit.evaluation.labelled_steps import join_labels
from stepcredit.evaluation.localisation import Localisation, first_error_classes, localise
from stepcredit.evaluation.results import Comparison, Result, plain
from stepcredit.evaluation.score_columns import ScoreColumns
from stepcredit.reports.examples import Example
from stepcredit.stats import Interval, ProblemBootstrap
from stepcredit.types import Rollout

TRAINING_LOG = "prm/train_log.jsonl"
"""In the demo's directory."""
REPORTED = ("pass", "majority", "best-of-n", "weighted-sigmoid")
"""Methods of a best-of-n evaluation that are reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardHistogram:
    """How rewards of right steps (before any error) and of first wrong steps are distributed.

    Attributes:
        edges: Edges of the bins in rising order, one more than there are bins (nats times beta).
        right: Number of right steps in each bin.
        first_wrong: Number of first wrong steps in each bin.
    """

    edges: tuple[float, ...]
    right: tuple[int, ...]
    first_wrong: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFindings:
    """What was measured on the responses of one policy.

    Attributes:
        distinct_mean: Mean number of different responses to a problem.
        steps: Whether the reward model's step rewards find the first wrong step.
        reference_steps: Whether the reference's step log-probability does.
    """

    num_problems: int
    num_responses: int
    distinct_mean: float
    results: tuple[Result, ...]
    comparisons: tuple[Comparison, ...]
    steps: Localisation
    reference_steps: Localisation
    rewards: RewardHistogram

    def to_json(self) -> dict[str, Any]:
        """JSON-able values, unrounded."""
        steps = self.steps
        localisation: dict[str, Any] = {
            **_ends("auc", steps.auc),
            **_ends("lowest_is_first_wrong", steps.lowest_is_first_wrong),
            **_ends("minimum_is_last", steps.minimum_is_last),
            **_ends("reference_auc", self.reference_steps.auc),
            "num_right_steps": steps.num_right_steps,
            "num_first_wrong_steps": steps.num_first_wrong_steps,
            "histogram": self.rewards,
        }
        content: dict[str, Any] = plain(
            {
                "num_problems": self.num_problems,
                "num_responses": self.num_responses,
                "distinct_mean": self.distinct_mean,
                "results": self.results,
                "differences": self.comparisons,
                "localisation": localisation,
            }
        )
        return content


def _ends(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What the reward model was trained on.

    Attributes:
        correct_share: Share of them with the right final answer.
        log: Training log, relative to ``summary.json``; see :func:`stepcredit.reports.training_log.read_log`.
    """

    num_problems: int
    num_responses: int
    correct_share: float
    log: str = TRAINING_LOG


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSummary:
    """The whole run.

    Attributes:
        policies: Policy name (``weak``, ``mid``, ``strong``) to what was measured on it.
        settings: Everything that was chosen, by stage: ``{"training": {"beta": 0.5, ...}, ...}``.
        commands: The commands that were run, for one policy.
        seconds: Stage to wall-clock seconds.
        files: Path in the demo's directory to one line on what it holds, in the order of the stages.
        git_commit: Commit of the checkout, if it ran from one.
        finished: When the run ended, ISO 8601 in UTC.
    """

    seed: int
    policies: Mapping[str, PolicyFindings]
    settings: Mapping[str, Mapping[str, Any]]
    training: TrainingData
    examples: tuple[Example, ...]
    commands: tuple[str, ...]
    versions: Mapping[str, str]
    seconds: Mapping[str, float]
    files: Mapping[str, str]
    git_commit: str | None
    finished: str

    def to_json(self) -> dict[str, Any]:
        """What ``summary.json`` holds, unrounded."""
        content: dict[str, Any] = plain(dataclasses.replace(self, policies={}))
        content["policies"] = {name: policy.to_json() for name, policy in self.policies.items()}
        return content


def policy_findings(
    evaluation: BestOfNEvaluation,
    rollouts: Sequence[Rollout],
    *,
    scores: ScoreColumns,
    reference_scores: ScoreColumns,
) -> PolicyFindings:
    """What one policy's responses show.

    Args:
        rollouts: The responses with the truth of every step.
        scores: By the reward model.
        reference_scores: By the reference's own log-probability.
    """
    steps = join_labels(rollouts, scores)
    bootstrap = ProblemBootstrap(steps.num_clusters)
    right, first_wrong = first_error_classes(steps)
    edges = np.histogram_bin_edges(steps.rewards[right | first_wrong], bins=40)
    return PolicyFindings(
        num_problems=evaluation.num_problems,
        num_responses=evaluation.num_responses[0],
        distinct_mean=evaluation.num_distinct,
        results=tuple(row for row in evaluation.results if row.method in REPORTED),
        comparisons=evaluation.comparisons,
        steps=localise(steps, bootstrap=bootstrap),
        reference_steps=localise(join_labels(rollouts, reference_scores), bootstrap=bootstrap),
        rewards=RewardHistogram(
            edges=tuple(edges.tolist()),
            right=tuple(np.histogram(steps.rewards[right], edges)[0].tolist()),
            first_wrong=tuple(np.histogram(steps.rewards[first_wrong], edges)[0].tolist()),
        ),
    )


def training_data(graded: Path) -> TrainingData:
    """What a file of graded responses holds."""
    rollouts = list(read_rollouts(graded))
    return TrainingData(
        num_problems=len({rollout.prompt_id for rollout in rollouts}),
        num_responses=len(rollouts),
        correct_share=sum(rollout.correct is True for rollout in rollouts) / len(rollouts),
    )
