"""Figures with intervals: one row per method and size, one row per compared pair."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepcredit.evaluation.best_of_n import Method, Outcomes
from stepcredit.evaluation.choices import Choice
from stepcredit.evaluation.samples import Scored
from stepcredit.stats import ProblemBootstrap, holm, paired_p_values


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Accuracy of a method with n responses; fractions in [0, 1].

    Attributes:
        method: ``pass``, ``majority``, ``best-of-n`` or ``weighted-<kind>``.
        scorer: Whose scores are used, if any.
        accuracy: Expected share of problems answered right.
        low: Lower end of its interval; NaN where there is one problem only.
        resampling_error: Standard error from random subsets, which the interval has in it; 0 where the
            accuracy is exact.
    """

    method: str
    scorer: str | None
    aggregate: str | None
    n: int
    accuracy: float
    low: float
    high: float
    resampling_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two methods on the same problems.

    Attributes:
        n: Responses chosen from.
        first: Label of a method, e.g. ``best-of-n/prm/min``.
        difference: Accuracy of the first minus that of the second.
        low: Lower end of its interval; NaN where there is one problem only.
        p_value: Two-sided paired test over problems; NaN where there is one only.
        p_holm: The same after Holm's correction over all comparisons of the table.
    """

    n: int
    first: str
    second: str
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleChoice:
    """The aggregate that did best on the very problems that are reported; it flatters the scorer."""

    method: str
    scorer: str
    n: int
    aggregate: str
    accuracy: float
    chosen_on: str = "the reported problems (oracle)"


def results(outcomes: Outcomes, bootstrap: ProblemBootstrap) -> list[Result]:
    """One row for each method and size."""
    flat = outcomes.values.reshape(-1, outcomes.values.shape[-1])
    low, high = bootstrap.intervals(flat)
    names = itertools.product(outcomes.methods, outcomes.ns)
    figures = zip(names, flat.mean(axis=1), low, high, outcomes.resampling_error.ravel(), strict=True)
    return [
        Result(
            method=method.kind,
            scorer=method.scorer,
            aggregate=method.aggregate,
            n=n,
            accuracy=_fraction(mean),
            low=_fraction(bottom),
            high=_fraction(top),
            resampling_error=float(error),
        )
        for (method, n), mean, bottom, top, error in figures
    ]


def _fraction(value: float) -> float:
    """Sums of many weights can leave [0, 1] by rounding; NaN stays."""
    return float(np.clip(value, 0.0, 1.0))


def headline(scorers: Sequence[Scored], choices: Mapping[str, Choice], outcomes: Outcomes) -> list[Method]:
    """The methods that are compared: plain vote, and each scorer's best-of-n and votes by its aggregate."""
    aggregates = {scorer.name: choices[scorer.name].aggregate for scorer in scorers}
    return [
        method
        for method in outcomes.methods
        if method.kind == "majority"
        or (method.scorer is not None and method.aggregate == aggregates[method.scorer])
    ]


def comparisons(
    outcomes: Outcomes, methods: Iterable[Method], bootstrap: ProblemBootstrap
) -> list[Comparison]:
    """Every pair of ``methods``, and each against a single response, at every size above 1."""
    single = outcomes.of(Method("pass"))[outcomes.ns.index(1)] if 1 in outcomes.ns else None
    chosen = list(methods)
    compared: list[tuple[int, str, str, np.ndarray]] = []
    labels = [method.label for method in chosen]
    low, high = [], []
    for size, n in enumerate(outcomes.ns):
        # With one response there is nothing to choose between.
        if n == 1:
            continue
        values = [outcomes.of(method)[size] for method in chosen]
        names = list(labels)
        if single is not None:
            values.append(single)
            names.append("pass@1")
        pairs = list(itertools.combinations(range(len(values)), 2))
        if not pairs:
            continue
        low_part, high_part = bootstrap.paired_intervals(np.stack(values), np.array(pairs))
        low.append(low_part)
        high.append(high_part)
        compared += [(n, names[a], names[b], values[a] - values[b]) for a, b in pairs]
    if not compared:
        return []
    p_values = paired_p_values(np.stack([difference for *_, difference in compared]))
    adjusted = holm(p_values)
    ends = zip(np.concatenate(low), np.concatenate(high), p_values, adjusted, strict=True)
    return [
        Comparison(
            n=n,
            first=first,
            second=second,
            difference=float(difference.mean()),
            low=float(bottom),
            high=float(top),
            p_value=float(p_value),
            p_holm=float(p_holm),
        )
        for (n, first, second, difference), (bottom, top, p_value, p_holm) in zip(compared, ends, strict=True)
    ]


def oracle_choices(rows: Iterable[Result]) -> list[OracleChoice]:
    """For each method, scorer and size, the aggregate with the best reported accuracy."""
    best: dict[tuple[str, str, int], Result] = {}
    for row in rows:
        if row.scorer is None or row.aggregate is None:
            continue
        key = row.method, row.scorer, row.n
        if key not in best or row.accuracy > best[key].accuracy:
            best[key] = row
    return [
        OracleChoice(method=method, scorer=scorer, n=n, aggregate=str(row.aggregate), accuracy=row.accuracy)
        for (method, scorer, n), row in best.items()
    ]


def plain(value: Any) -> Any:
    """Dataclasses, arrays and tuples as JSON-able values; numbers that are not finite become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
