"""A test set with scores: responses problem by problem, and what each method says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from stepcredit.data import read_rollouts
from stepcredit.evaluation.score_columns import REWARD, read_score_columns
from stepcredit.steps import StepRule, split
from stepcredit_study.analyses.step_tokens import means_and_lengths
from stepcredit_study.analyses.within_problem import Pairs, count_pairs, without_length
from stepcredit_study.frame.measuring import AGGREGATES, TestBed
from stepcredit_study.frame.world import Responses
from stepcredit_study.word_problems.slips import first_slip, step_truths

REFERENCE = "reference"
SHORTNESS = "shortness"


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of the distinct responses that arithmetic judges, up to the first slip.

    Attributes:
        is_slip: The first slip of its response; the others are right steps before any slip.
        problems: Index of each step's problem.
        positions: How many steps come before each in its response.
        lengths: Tokens of each step.
        rewards: Method (and seed) to the step's reward; the reference's is the mean over its tokens, that of
            shortness is minus their number.
        share_with_slip: Of wrong responses, those that hold a slip; ``None`` where all are right.
        share_foreign: Of the operands in wrong responses, those from nowhere.
    """

    is_slip: Bool[np.ndarray, " steps"]
    problems: Int[np.ndarray, " steps"]
    positions: Int[np.ndarray, " steps"]
    lengths: Float[np.ndarray, " steps"]
    rewards: Mapping[str, Sequence[Float[np.ndarray, " steps"]]]
    share_with_slip: float | None
    share_foreign: float | None


class Evidence:
    """A policy's responses to the problems of one test set, and scores of the distinct ones.

    Args:
        scores: Method to its files of scores, one per seed of its training.
        aggregates: Method to the aggregate that stands for a response; ``reward`` where it is not named.
        variants: (method, variant) to its scores and the aggregate that stands for a response.
    """

    def __init__(
        self,
        responses: Responses,
        scores: Mapping[str, Sequence[Path]],
        aggregates: Mapping[str, str],
        ns: tuple[int, ...],
        variants: Mapping[tuple[str, str], tuple[Path, str]] | None = None,
    ) -> None:
        self.bed = TestBed(responses, ns)
        self.files = scores
        self.aggregates = aggregates
        self.variants = variants or {}

    @property
    def methods(self) -> list[str]:
        """Names of all methods with scores, and shortness."""
        return [*self.files, SHORTNESS]

    @cached_property
    def problems(self) -> Int[np.ndarray, " responses"]:
        """Index of each response's problem."""
        indices: Int[np.ndarray, " responses"] = np.nonzero(self.bed.samples.valid)[0]
        return indices

    @property
    def num_templates(self) -> int:
        """Of the problems; 0 where they come from none."""
        rollouts = read_rollouts(self.bed.responses.distinct)
        return len({rollout.extras.get("template") for rollout in rollouts} - {None})

    @cached_property
    def lengths(self) -> Float[np.ndarray, " responses"]:
        """Tokens of each response, the end of the turn included."""
        scored = self.bed.scored(self.files[REFERENCE][0])
        lengths: Float[np.ndarray, " responses"] = scored.num_tokens[self.bed.samples.valid] * 1.0
        return lengths

    def scores(self, method: str) -> list[Float[np.ndarray, "problems responses"]]:
        """Of each seed; higher is better."""
        if method == SHORTNESS:
            valid = self.bed.samples.valid
            values = np.zeros(valid.shape)
            values[valid] = -self.lengths
            return [values]
        aggregate = self.aggregates.get(method, REWARD)
        return [self.bed.scored(path).scores[aggregate] for path in self.files[method]]

    def pairs(self, method: str, *, lengths_removed: bool = True) -> list[Pairs]:
        """Right and wrong responses to the same problem, of each seed.

        Of shortness length is never removed: nothing would be left.
        """
        remove = lengths_removed and method != SHORTNESS
        return [self._pairs(scores, lengths_removed=remove) for scores in self.scores(method)]

    def variant_pairs(self, method: str, variant: str) -> list[Pairs]:
        """Those of a variant's one training, length regressed out."""
        path, aggregate = self.variants[method, variant]
        return [self._pairs(self.bed.scored(path).scores[aggregate], lengths_removed=True)]

    def _pairs(self, scores: Float[np.ndarray, "problems responses"], *, lengths_removed: bool) -> Pairs:
        samples = self.bed.samples
        values = scores[samples.valid]
        if lengths_removed:
            values = without_length(values, self.lengths, self.problems)
        return count_pairs(values, samples.correct[samples.valid], self.problems, samples.num_problems)

    @cached_property
    def steps(self) -> Steps:
        """What arithmetic says of the distinct responses' steps, with each method's rewards."""
        rule, index = StepRule("newline"), {name: n for n, name in enumerate(self.bed.samples.problem_ids)}
        is_slip: list[bool] = []
        problems: list[int] = []
        places: list[tuple[str, int]] = []
        counts = Counter[str]()
        for rollout in self.bed.distinct:
            truths = step_truths(str(rollout.prompt), split(rollout.response, rule))
            slip = first_slip(truths)
            if not rollout.correct:
                counts["wrong"] += 1
                counts["slip"] += slip >= 0
                counts["foreign"] += sum(truth.num_foreign for truth in truths)
                counts["operands"] += sum(truth.num_operands for truth in truths)
            for place, truth in enumerate(truths if slip < 0 else truths[: slip + 1]):
                if truth.verdict != "none":
                    is_slip.append(place == slip)
                    problems.append(index[rollout.prompt_id])
                    places.append((rollout.id, place))
        by_tokens = means_and_lengths(self.files[REFERENCE][0])
        means, lengths = (
            np.array([by_tokens[name][which][place] for name, place in places], dtype=np.float64)
            for which in (0, 1)
        )
        rewards = {
            method: [means] if method == REFERENCE else [_step_rewards(path, places) for path in paths]
            for method, paths in self.files.items()
        }
        return Steps(
            np.array(is_slip, dtype=bool),
            np.array(problems, dtype=np.int64),
            np.array([place for _, place in places], dtype=np.int64),
            lengths,
            {**rewards, SHORTNESS: [-lengths]},
            counts["slip"] / counts["wrong"] if counts["wrong"] else None,
            counts["foreign"] / counts["operands"] if counts["operands"] else None,
        )


def _step_rewards(path: Path, places: Sequence[tuple[str, int]]) -> Float[np.ndarray, " steps"]:
    columns = read_score_columns(path)
    row = {identifier: number for number, identifier in enumerate(columns.ids)}
    rewards = [columns.step_rewards[columns.step_offsets[row[name]] + place] for name, place in places]
    return np.array(rewards, dtype=np.float64)


def best_aggregate(dev: Path, reference: Path, scores: Path) -> tuple[str, float]:
    """The aggregate that orders development responses best, and its AUC; see :func:`development_aucs`."""
    aucs = development_aucs(dev, reference, scores)
    aggregate = max(aucs, key=lambda name: aucs[name])
    return aggregate, aucs[aggregate]


def development_aucs(dev: Path, reference: Path, scores: Path) -> dict[str, float]:
    """Aggregate to the AUC that choices are made by: within development problems, length regressed out."""
    responses = Responses(dev, dev)
    known = TestBed(responses, ()).scored(scores).scores
    aucs = {}
    for aggregate in [name for name in AGGREGATES if name in known] or [REWARD]:
        files = {REFERENCE: [reference], "method": [scores]}
        (pairs,) = Evidence(responses, files, {"method": aggregate}, ()).pairs("method")
        aucs[aggregate] = float(pairs.ordered.sum() / pairs.total.sum()) if pairs.total.sum() else 0.5
    return aucs
