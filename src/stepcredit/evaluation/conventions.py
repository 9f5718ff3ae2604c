"""How much each scoring convention changes a result: one reward model's scores, made in several ways.

Every way is compared with one baseline on the same problems, so intervals of the changes are paired.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from stepcredit.errors import DataError
from stepcredit.evaluation.error_finding import best_threshold, f1_draws, threshold_ranges
from stepcredit.evaluation.labelled_steps import StepQuantity, join_labels
from stepcredit.evaluation.samples import Joined, Scored
from stepcredit.evaluation.score_columns import ScoreColumns
from stepcredit.evaluation.tables import Table, number, with_interval
from stepcredit.stats import ProblemBootstrap, best_of_first_n, best_of_n
from stepcredit.types import Rollout

_STEP_SCORES: tuple[tuple[str, StepQuantity], ...] = (("difference", "reward"), ("cumulative", "value"))
_AGGREGATES = {"min": np.minimum, "sum": np.add}


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """One way from log-probabilities to a result; what does not apply to the result is ``None``.

    Attributes:
        steps: How rewards are assigned to steps: ``clean``, ``processbench`` or ``best-of-n``.
        reference: Whether the reference's log-probabilities are subtracted.
        step_score: A step's ``difference`` of the cumulative reward, or the ``cumulative`` reward itself.
        aggregate: What stands for a response: the ``min`` or the ``sum`` of its step scores.
        subsets: Which n responses are chosen from: ``all`` subsets, or the ``first`` n in the file.
    """

    steps: str = "clean"
    reference: bool = True
    step_score: str = "difference"
    aggregate: str | None = None
    subsets: str | None = None

    def num_changes(self, other: Convention) -> int:
        """In how many respects two conventions differ."""
        return sum(getattr(self, field.name) != getattr(other, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConventionResult:
    """A result under one convention, with its paired change from the first one's.

    Attributes:
        metric: ``best-of-n``: accuracy of the response with the highest score; ``f1``: first wrong steps
            found, with the threshold that is best on these very steps (oracle), as published.
        value: In [0, 1], with the ends of its interval.
        change: ``value`` minus that of the baseline, with the ends of its paired interval.
    """

    convention: Convention
    metric: str
    n: int | None
    value: float
    low: float
    high: float
    change: float
    change_low: float
    change_high: float


def response_scores(
    columns: ScoreColumns, quantity: StepQuantity, aggregate: str
) -> Float[np.ndarray, " responses"]:
    """The ``min`` or ``sum`` of each response's step rewards or values."""
    steps = columns.step_rewards if quantity == "reward" else columns.step_values
    if not np.all(np.diff(columns.step_offsets) > 0):
        raise DataError("a response has no steps", where=columns.source)
    scores: NDArray[np.float64] = _AGGREGATES[aggregate].reduceat(steps, columns.step_offsets[:-1])
    return scores


def best_of_n_by_convention(
    joined: Joined, made: Mapping[str, Convention], ns: Sequence[int], *, draws: int = 10_000, seed: int = 0
) -> list[ConventionResult]:
    """Best-of-n accuracy under every convention; changes are from the first one of the result.

    Args:
        joined: Graded responses and their scores by the same reward model, made in several ways.
        made: Name of each scorer in ``joined`` to how its scores were made (``steps`` and ``reference``);
            the first one's differences, by their minimum and over all subsets, are the baseline.
        ns: Subset sizes, each at most the smallest number of responses.
    """
    by_name = {scorer.name: scorer for scorer in joined.scorers}
    conventions, accuracies = [], []
    for name, how in made.items():
        for convention, values in _accuracies(joined, by_name[name], how, ns):
            conventions.append(convention)
            accuracies.append(values)
    bootstrap = ProblemBootstrap(joined.samples.num_problems, num_draws=draws, seed=seed)
    results = []
    for size, n in enumerate(ns):
        values = np.stack([by_size[size] for by_size in accuracies])
        low, high = bootstrap.intervals(values)
        pairs = np.array([(index, 0) for index in range(len(values))])
        change_low, change_high = bootstrap.paired_intervals(values, pairs)
        results += [
            ConventionResult(
                convention=convention,
                metric="best-of-n",
                n=n,
                value=float(values[index].mean()),
                low=float(low[index]),
                high=float(high[index]),
                change=float((values[index] - values[0]).mean()),
                change_low=float(change_low[index]),
                change_high=float(change_high[index]),
            )
            for index, convention in enumerate(conventions)
        ]
    return results


def _accuracies(
    joined: Joined, scorer: Scored, how: Convention, ns: Sequence[int]
) -> Iterator[tuple[Convention, Float[np.ndarray, "sizes problems"]]]:
    samples = joined.samples
    for (step_score, quantity), aggregate in product(_STEP_SCORES, _AGGREGATES):
        scores = response_scores(scorer.columns, quantity, aggregate)[scorer.rows]
        for subsets in ("all", "first"):
            if subsets == "all":
                values = best_of_n(scores, samples.correct, samples.num_responses, ns)
            else:
                values = best_of_first_n(scores, samples.correct, ns)
            yield (
                Convention(
                    steps=how.steps,
                    reference=how.reference,
                    step_score=step_score,
                    aggregate=aggregate,
                    subsets=subsets,
                ),
                values,
            )


def error_finding_by_convention(
    rollouts: Iterable[Rollout],
    made: Mapping[str, tuple[Convention, ScoreColumns]],
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[list[ConventionResult], dict[str, int]]:
    """ProcessBench's F1 under every convention, on the responses that all of them score.

    Args:
        made: Name to how scores were made, and the scores; the first one's differences are the baseline.

    Returns:
        The results, and what was left out, by reason.
    """
    labelled = [rollout for rollout in rollouts if rollout.step_labels]
    excluded: dict[str, int] = {}
    for name, (_, columns) in made.items():
        steps = join_labels(labelled, columns, source=name)
        excluded |= {f"{reason} ({name})": count for reason, count in steps.excluded.items()}
        kept = set(steps.ids)
        labelled = [rollout for rollout in labelled if rollout.id in kept]
    results: list[ConventionResult] = []
    bootstrap: ProblemBootstrap | None = None
    baseline: tuple[float, NDArray[np.float64]] | None = None
    for name, (how, columns) in made.items():
        steps = join_labels(labelled, columns, source=name)
        bootstrap = bootstrap or ProblemBootstrap(steps.num_clusters, num_draws=draws, seed=seed)
        for step_score, quantity in _STEP_SCORES:
            ranges = threshold_ranges(steps, quantity)
            (*_, estimate), (*_, drawn) = f1_draws(steps, ranges, best_threshold(ranges), bootstrap)
            baseline = baseline or (estimate, drawn)
            low, high = bootstrap.quantiles(drawn)
            change_low, change_high = bootstrap.quantiles(drawn - baseline[1])
            results.append(
                ConventionResult(
                    convention=Convention(steps=how.steps, reference=how.reference, step_score=step_score),
                    metric="f1",
                    n=None,
                    value=estimate,
                    low=low,
                    high=high,
                    change=estimate - baseline[0],
                    change_low=change_low,
                    change_high=change_high,
                )
            )
    return results, excluded


def convention_tables(results: Sequence[ConventionResult]) -> list[Table]:
    """For each metric, each single change from the baseline, and what the published evaluator reports."""
    tables = []
    for metric in dict.fromkeys(row.metric for row in results):
        rows = [row for row in results if row.metric == metric]
        baseline = rows[0].convention
        name = {"best-of-n": "best-of-n accuracy", "f1": "F1 of first wrong steps, oracle thresholds"}[metric]
        one = [row for row in rows if row.convention.num_changes(baseline) <= 1]
        tables.append(_table(f"One convention changed at a time: {name}", one))
        published = [row for row in rows if _is_published(row)]
        if published:
            tables.append(_table(f"As the published evaluator reports: {name}", published))
    return tables


def _is_published(row: ConventionResult) -> bool:
    if row.metric == "f1":
        return row.convention.steps == "processbench"
    return row.convention.steps == "best-of-n" and row.convention.subsets == "first"


def _table(title: str, rows: Sequence[ConventionResult]) -> Table:
    by_convention: dict[Convention, list[ConventionResult]] = {}
    for row in rows:
        by_convention.setdefault(row.convention, []).append(row)
    body = []
    for convention, sizes in by_convention.items():
        cells = list(_labels(convention).values())
        for row in sizes:
            cells += [number(row.value), with_interval(row.change, row.change_low, row.change_high)]
        body.append(tuple(cells))
    labels = list(_labels(rows[0].convention))
    header = list(labels)
    for row in next(iter(by_convention.values())):
        header += ["F1" if row.n is None else f"n = {row.n}", "change"]
    return Table(f"{title}, with paired 95% intervals", tuple(header), tuple(body), len(labels))


def _labels(convention: Convention) -> dict[str, str]:
    """What applies, by name."""
    labels = {field.name.replace("_", " "): getattr(convention, field.name) for field in fields(convention)}
    labels["reference"] = "with" if convention.reference else "without"
    return {name: value for name, value in labels.items() if value is not None}
