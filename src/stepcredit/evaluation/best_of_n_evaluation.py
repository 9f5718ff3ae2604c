"""``eval best-of-n`` from records: join, choose, estimate, compare, diagnose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import UserError
from stepcredit.evaluation.best_of_n import BestOfNSettings, Method, Outcomes, outcomes, usable_sizes
from stepcredit.evaluation.choices import Choice, fixed_choice
from stepcredit.evaluation.curves import CurvePoint, common_curves
from stepcredit.evaluation.development import (
    Development,
    choose,
    development_name,
    split_off,
    with_reported_scores,
)
from stepcredit.evaluation.diagnostics import Diagnostics, diagnose
from stepcredit.evaluation.failures import Failure, worst_failures
from stepcredit.evaluation.remarks import (
    best_of_n_remarks,
    describe_samples,
    development_remarks,
    interval_remarks,
)
from stepcredit.evaluation.results import (
    Comparison,
    OracleChoice,
    Result,
    comparisons,
    headline,
    oracle_choices,
    plain,
    results,
)
from stepcredit.evaluation.samples import Joined
from stepcredit.evaluation.score_columns import REWARD
from stepcredit.stats import ProblemBootstrap


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfNEvaluation:
    """Everything that ``eval best-of-n`` found.

    Attributes:
        comparisons: Paired differences of the methods that were chosen beforehand.
        choices: What stands for each scorer in comparisons, and where it was chosen.
        oracle_choices: The best aggregate in hindsight, labelled as such.
        diagnostics: Scorer to what may be behind its figures.
        failures: Scorer to the problems where it prefers a wrong response by the largest margin.
        curves: ``pass`` and ``majority`` against n, to lie beside the curves in ``diagnostics``.
        responses: What the responses are like, whoever scores them.
        subsets: Which n of N responses the results are about: ``all``, or ``first n in file``.
        num_responses: Smallest and largest number of responses to a problem.
        num_distinct: Mean number of different responses to a problem.
    """

    results: tuple[Result, ...]
    comparisons: tuple[Comparison, ...]
    choices: Mapping[str, Choice]
    oracle_choices: tuple[OracleChoice, ...]
    diagnostics: Mapping[str, Diagnostics]
    failures: Mapping[str, tuple[Failure, ...]]
    curves: Mapping[str, tuple[CurvePoint, ...]]
    responses: Mapping[str, float]
    subsets: str
    num_problems: int
    num_responses: tuple[int, int]
    num_distinct: float
    excluded: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-able values, unrounded."""
        values: dict[str, Any] = plain(self)
        return values


def evaluate_best_of_n(
    joined: Joined,
    settings: BestOfNSettings | None = None,
    *,
    aggregate: str = REWARD,
    development: Development | None = None,
    draws: int = 10_000,
) -> BestOfNEvaluation:
    """Accuracy of every method, with intervals and paired comparisons.

    Args:
        aggregate: What stands for a scorer in comparisons where nothing is chosen on development problems.
        development: Problems to choose aggregate, temperature and calibration on.

    Raises:
        UserError: No size can be used, or a scorer lacks the aggregate.
    """
    settings = settings or BestOfNSettings()
    joined, held_out = split_off(joined, development)
    samples = joined.samples
    ns, beyond = usable_sizes(settings.ns, samples.num_responses)
    settings = replace(settings, ns=ns)
    choices = _choices(joined, held_out, development, settings, aggregate)
    expected = outcomes(samples, joined.scorers, settings, choices)
    bootstrap = ProblemBootstrap(samples.num_problems, num_draws=draws, seed=settings.seed)
    rows = results(expected, bootstrap)
    compared = comparisons(expected, headline(joined.scorers, choices, expected), bootstrap)
    notes = [
        *interval_remarks({"": samples.num_problems}, [(row.low, row.high) for row in rows]),
        *best_of_n_remarks(joined, settings, beyond),
        *(development_remarks(held_out, samples) if held_out is not None else ()),
    ]
    return BestOfNEvaluation(
        results=tuple(rows),
        comparisons=tuple(compared),
        choices=choices,
        oracle_choices=tuple(oracle_choices(rows)),
        diagnostics=_diagnostics(joined, choices, expected, bootstrap),
        failures={
            scorer.name: worst_failures(samples, scorer, choices[scorer.name].aggregate)
            for scorer in joined.scorers
        },
        curves=common_curves(samples, bootstrap),
        responses=describe_samples(samples),
        subsets="first n in file" if settings.first else "all",
        num_problems=samples.num_problems,
        num_responses=(int(samples.num_responses.min()), int(samples.num_responses.max())),
        num_distinct=float(samples.num_distinct.mean()),
        excluded=dict(joined.excluded),
        notes=tuple(notes),
    )


def _choices(
    joined: Joined,
    held_out: Joined | None,
    development: Development | None,
    settings: BestOfNSettings,
    aggregate: str,
) -> dict[str, Choice]:
    if held_out is None or development is None:
        return {
            scorer.name: fixed_choice(_known(scorer.scores, scorer.name, aggregate))
            for scorer in joined.scorers
        }
    scorers = with_reported_scores(held_out, joined)
    return choose(held_out.samples, scorers, settings, development_name(held_out, development))


def _diagnostics(
    joined: Joined, choices: Mapping[str, Choice], expected: Outcomes, bootstrap: ProblemBootstrap
) -> dict[str, Diagnostics]:
    """Of each scorer, by the aggregate that was chosen for it."""
    diagnostics = {}
    for scorer in joined.scorers:
        aggregate = choices[scorer.name].aggregate
        by_difficulty = _by_difficulty(expected, scorer.name, aggregate)
        diagnostics[scorer.name] = diagnose(joined.samples, scorer, aggregate, by_difficulty, bootstrap)
    return diagnostics


def _by_difficulty(expected: Outcomes, scorer: str, aggregate: str) -> dict[str, NDArray[np.float64]]:
    """Accuracy on each problem at the largest n, of the methods that are shown by difficulty."""
    shown = (
        Method("majority"),
        Method("best-of-n", scorer, aggregate),
        Method("weighted-sigmoid", scorer, aggregate),
    )
    return {method.label: expected.of(method)[-1] for method in shown if method in expected.methods}


def _known(scores: Mapping[str, Any], scorer: str, aggregate: str) -> str:
    if aggregate not in scores:
        raise UserError(
            f"scorer {scorer!r} has no {aggregate!r} for every response",
            where="--aggregate",
            hint=f"use one of {', '.join(scores)}",
        )
    return aggregate
