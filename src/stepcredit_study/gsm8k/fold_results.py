"""What the folds say together: AUC within a generator and within a problem, with length regressed out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from stepcredit.data import read_rollouts
from stepcredit.evaluation.score_columns import REWARD, read_score_columns
from stepcredit.stats import ProblemBootstrap
from stepcredit_study.analyses.grouped_auc import Grouped, grouped_auc
from stepcredit_study.analyses.within_problem import (
    as_list,
    auc_difference,
    count_pairs,
    pooled_auc,
    without_length,
)

REFERENCE, SHORTNESS = "reference", "shortness"


@dataclass(frozen=True, slots=True)
class Fold:
    """The test problems of one fold.

    Attributes:
        reference: Scores by the untrained model's log-probability.
        scores: Method to the scores of its chosen model.
        chosen: What was chosen on the development problems of the fold.
        aggregates: Method to the aggregate that stands for a response; its reward where none is named.
    """

    graded: Path
    reference: Path
    scores: Mapping[str, Path]
    chosen: Mapping[str, Any]
    aggregates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Column:
    """One fold's solutions: what is compared, and scores with length and without."""

    right: NDArray[np.bool_]
    problems: NDArray[np.int64]
    groups: NDArray[np.int64]
    scores: Mapping[str, Float[np.ndarray, " solutions"]]


def evaluate(folds: Sequence[Fold]) -> dict[str, Any]:
    """AUCs of every method over all folds, and its differences from the controls."""
    columns = [_column(fold) for fold in folds]
    groups, problems, num_groups, num_problems = [], [], 0, 0
    for column in columns:
        groups.append(column.groups + num_groups)
        problems.append(column.problems + num_problems)
        num_groups += column.groups.max() + 1
        num_problems += column.problems.max() + 1
    right = np.concatenate([column.right for column in columns])
    items = Grouped(right, np.concatenate(problems), np.concatenate(groups))
    bootstrap = ProblemBootstrap(num_problems)
    values = {name: np.concatenate([column.scores[name] for column in columns]) for name in columns[0].scores}
    return {
        "problems": int(num_problems),
        "solutions": len(right),
        "right": int(right.sum()),
        "generators": int(num_groups) // len(folds),
        "methods": {name: _row(name, values, items, bootstrap) for name in values},
    }


def development_auc(graded: Path, reference: Path, scores: Path) -> float:
    """What rates are chosen by: within a generator, length regressed out; one half without pairs."""
    column = _column(Fold(graded, reference, {"method": scores}, {}))
    items = Grouped(column.right, column.problems, column.groups)
    bootstrap = ProblemBootstrap(int(column.problems.max()) + 1, num_draws=2)
    auc = grouped_auc(items, [column.scores["method"]], bootstrap).estimate
    return 0.5 if np.isnan(auc) else auc


def _column(fold: Fold) -> _Column:
    rollouts = list(read_rollouts(fold.graded))
    right = np.array([rollout.correct is True for rollout in rollouts])
    problems, groups = (
        np.unique(names, return_inverse=True)[1].astype(np.int64)
        for names in (
            [rollout.prompt_id for rollout in rollouts],
            [rollout.policy or "" for rollout in rollouts],
        )
    )
    ids = [rollout.id for rollout in rollouts]
    lengths = _of_rollouts(fold.reference, ids, None)
    values = {SHORTNESS: -lengths}
    for name, path in {REFERENCE: fold.reference, **fold.scores}.items():
        raw = _of_rollouts(path, ids, fold.aggregates.get(name, REWARD))
        values[name] = without_length(raw, lengths, groups)
    return _Column(right, problems, groups, values)


def _of_rollouts(path: Path, ids: Sequence[str], name: str | None) -> Float[np.ndarray, " solutions"]:
    """Scores, or numbers of tokens where no score is named, in the order of ``ids``."""
    columns = read_score_columns(path)
    row = {identifier: number for number, identifier in enumerate(columns.ids)}
    values = columns.num_tokens if name is None else columns.scores[name]
    picked: Float[np.ndarray, " solutions"] = values[[row[identifier] for identifier in ids]] * 1.0
    return picked


def _row(
    name: str,
    values: Mapping[str, Float[np.ndarray, " solutions"]],
    items: Grouped,
    bootstrap: ProblemBootstrap,
) -> dict[str, Any]:
    pairs = {
        method: [count_pairs(scores, items.positive, items.problems, bootstrap.num_problems)]
        for method, scores in values.items()
    }
    row = {
        "within a generator": as_list(grouped_auc(items, [values[name]], bootstrap)),
        "within a problem": as_list(pooled_auc(pairs[name], bootstrap)),
    }
    for control in (SHORTNESS, REFERENCE):
        if name not in (control, SHORTNESS):
            difference = grouped_auc(items, [values[name]], bootstrap, minus=[values[control]])
            row[f"within a generator, minus {control}"] = as_list(difference)
            within = auc_difference(pairs[name], pairs[control], bootstrap)
            row[f"within a problem, minus {control}"] = as_list(within)
    return row
