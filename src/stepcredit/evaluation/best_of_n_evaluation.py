"""``eval best-of-n`` from records: join, choose, estimate, compare, diagnose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stepcredit.errors import UserError
from stepcredit.evaluation.best_of_n import BestOfNSettings, outcomes, usable_sizes
from stepcredit.evaluation.choices import Choice, fixed_choice
from stepcredit.evaluation.development import (
    Development,
    choose,
    development_name,
    split_off,
    with_reported_scores,
)
from stepcredit.evaluation.diagnostics import (
    CurvePoint,
    Diagnostics,
    curve_sizes,
    describe_samples,
    diagnose,
)
from stepcredit.evaluation.failures import Failure, worst_failures
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
from stepcredit.evaluation.samples import Joined, Samples
from stepcredit.evaluation.score_columns import REWARD
from stepcredit.stats import Interval, ProblemBootstrap, majority_vote, pass_at_n


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfNEvaluation:
    """Everything that ``eval best-of-n`` found.

    Attributes:
        results: One row for each method and size.
        comparisons: Paired differences of the methods that were chosen beforehand.
        choices: What stands for each scorer in comparisons, and where it was chosen.
        oracle_choices: The best aggregate in hindsight, labelled as such.
        diagnostics: Scorer to what may be behind its figures.
        failures: Scorer to the problems where it prefers a wrong response by the largest margin.
        curves: ``pass`` and ``majority`` against n, to lie beside the curves in ``diagnostics``.
        responses: What the responses are like, whoever scores them.
        subsets: Which n of N responses the results are about: ``all``, or ``first n in file``.
        num_problems: Problems that are reported.
        num_responses: Smallest and largest number of responses to a problem.
        num_distinct: Mean number of different responses to a problem.
        excluded: What was left out, by reason.
        notes: What a reader must know.
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
        joined: Graded responses and their scores.
        settings: Sizes and votes.
        aggregate: What stands for a scorer in comparisons where nothing is chosen on development problems.
        development: Problems to choose aggregate, temperature and calibration on.
        draws: Bootstrap draws.

    Raises:
        UserError: No size can be used, or a scorer lacks the aggregate.
    """
    settings = settings or BestOfNSettings()
    joined, held_out = split_off(joined, development)
    samples = joined.samples
    ns, beyond = usable_sizes(settings.ns, samples.num_responses)
    settings = replace(settings, ns=ns)
    if held_out is not None and development is not None:
        choices = choose(
            held_out.samples,
            with_reported_scores(held_out, joined),
            settings,
            development_name(held_out, development),
        )
    else:
        choices = {
            scorer.name: fixed_choice(_known(scorer.scores, scorer.name, aggregate))
            for scorer in joined.scorers
        }
    found = outcomes(samples, joined.scorers, settings, choices)
    bootstrap = ProblemBootstrap(samples.num_problems, num_draws=draws, seed=settings.seed)
    rows = results(found, bootstrap)
    scorers = {scorer.name: (scorer, choices[scorer.name].aggregate) for scorer in joined.scorers}
    return BestOfNEvaluation(
        results=tuple(rows),
        comparisons=tuple(comparisons(found, headline(joined.scorers, choices, found), bootstrap)),
        choices=choices,
        oracle_choices=tuple(oracle_choices(rows)),
        diagnostics={
            name: diagnose(samples, scored, chosen, found, bootstrap)
            for name, (scored, chosen) in scorers.items()
        },
        failures={
            name: worst_failures(samples, scored, chosen) for name, (scored, chosen) in scorers.items()
        },
        curves=_curves(samples, bootstrap),
        responses=describe_samples(samples),
        subsets="first n in file" if settings.first else "all",
        num_problems=samples.num_problems,
        num_responses=(int(samples.num_responses.min()), int(samples.num_responses.max())),
        num_distinct=float(samples.num_distinct().mean()),
        excluded=dict(joined.excluded),
        notes=(*_notes(joined, settings, beyond), *_overlap(held_out, samples)),
    )


def _curves(samples: Samples, bootstrap: ProblemBootstrap) -> dict[str, tuple[CurvePoint, ...]]:
    """An oracle's choice and the plain vote at the sizes of the scorers' curves."""
    ns = curve_sizes(samples)
    num_correct = samples.correct.sum(axis=1)
    found = {"pass": np.stack([pass_at_n(num_correct, samples.num_responses, n) for n in ns])}
    if samples.has_answers:
        found["majority"] = majority_vote(samples.answers, samples.correct, samples.num_responses, ns)
    curves = {}
    for name, values in found.items():
        low, high = bootstrap.intervals(values)
        curves[name] = tuple(
            CurvePoint(n=n, accuracy=Interval(float(row.mean()), float(bottom), float(top)))
            for n, row, bottom, top in zip(ns, values, low, high, strict=True)
        )
    return curves


def _known(scores: Mapping[str, Any], scorer: str, aggregate: str) -> str:
    if aggregate not in scores:
        raise UserError(
            f"scorer {scorer!r} has no {aggregate!r} for every response",
            where="--aggregate",
            hint=f"use one of {', '.join(scores)}",
        )
    return aggregate


def _spelled_differently(samples: Samples) -> int:
    """Problems whose right responses do not all have the same prediction."""
    right = samples.correct & (samples.answers >= 0)
    lowest = np.where(right, samples.answers, np.iinfo(np.int64).max).min(axis=1)
    highest = np.where(right, samples.answers, -1).max(axis=1)
    return int((highest > lowest).sum())


def _overlap(held_out: Joined | None, samples: Samples) -> list[str]:
    shared = 0 if held_out is None else len({*held_out.samples.problem_ids} & {*samples.problem_ids})
    if not shared:
        return []
    return [f"{shared} of the problems that choices were made on are also reported: their figures flatter"]


def _notes(joined: Joined, settings: BestOfNSettings, beyond: Iterable[int]) -> Iterable[str]:
    samples = joined.samples
    smallest, largest = int(samples.num_responses.min()), int(samples.num_responses.max())
    if smallest != largest:
        few = samples.problem_ids[int(samples.num_responses.argmin())]
        yield f"problems have {smallest} to {largest} responses; {few!r} has the fewest, which bounds n"
    left_out = ", ".join(map(str, beyond))
    if left_out:
        yield f"n = {left_out} is left out: the smallest number of responses to a problem is {smallest}"
    if settings.first:
        yield "each n takes the first n responses in the file, not all subsets of them"
    if not samples.has_answers:
        yield "no response has a prediction, so there is no voting; grade with a grader that extracts answers"
    else:
        abstaining = int((samples.valid & (samples.answers < 0)).sum())
        if abstaining:
            yield f"{abstaining} responses have no prediction; they abstain from votes"
        spelled = _spelled_differently(samples)
        if spelled:
            yield (
                f"on {spelled} problems right responses have different predictions; votes count them as "
                "different answers"
            )
    for scorer in joined.scorers:
        for aggregate, lacking in scorer.incomplete.items():
            yield f"{scorer.name}: {aggregate} is left out, {lacking} responses lack it"
        if len(scorer.columns.scorers) > 1:
            yield f"{scorer.name}: the file mixes scorers: {', '.join(scorer.columns.scorers)}"
