"""Choices made on development problems: aggregate, temperature, calibration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from stepcredit.data.prompt_ids import shared_problems
from stepcredit.errors import UserError
from stepcredit.evaluation.best_of_n import BestOfNSettings, vote_subsets
from stepcredit.evaluation.choices import Choice
from stepcredit.evaluation.samples import Joined, Samples, Scored, select, split_by_problem
from stepcredit.runs import warn
from stepcredit.stats import best_of_n, fit_log_odds, sigmoid
from stepcredit.types import Rollout
from stepcredit.wording import agree, quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Development:
    """The problems on which choices are made.

    Attributes:
        joined: Their responses and scores; ``None`` takes ``share`` of the evaluated problems away.
        share: Share of problems held out, by the hash of their id.
        name: Names the problems in the result, e.g. the file.
    """

    joined: Joined | None = None
    share: float = 0.0
    name: str = ""


def warn_of_shared_problems(development: Iterable[Rollout], reported: Iterable[Rollout]) -> None:
    """Say so if choices are made on problems that figures are reported of."""
    if shared := shared_problems(development, reported):
        warn(
            f"{quantity(len(shared), 'development problem')}, first {shared[0]!r}, "
            f"{agree(len(shared), 'is', 'are')} reported too: figures of what is chosen are too good"
        )


def split_off(joined: Joined, development: Development | None) -> tuple[Joined, Joined | None]:
    """Problems to report, and problems to choose on.

    Raises:
        UserError: The share leaves nothing on one side.
    """
    if development is None:
        return joined, None
    if development.joined is not None:
        return joined, development.joined
    held_out = split_by_problem(joined.samples, development.share)
    if held_out.all() or not held_out.any():
        raise UserError(
            f"leaves {quantity(int((~held_out).sum()), 'problem')} to report and {int(held_out.sum())} to "
            "choose on",
            where="--dev-fraction",
            hint="use more problems or another fraction",
        )
    return select(joined, ~held_out), select(joined, held_out)


def with_reported_scores(held_out: Joined, joined: Joined) -> list[Scored]:
    """The development problems' scorers with the aggregates that the reported problems have too."""
    reported = {scorer.name: scorer.scores for scorer in joined.scorers}
    return [
        replace(
            scorer,
            scores={name: scorer.scores[name] for name in scorer.scores if name in reported[scorer.name]},
        )
        for scorer in held_out.scorers
    ]


def development_name(held_out: Joined, development: Development) -> str:
    """How results name the problems that choices were made on."""
    count = held_out.samples.num_problems
    if development.joined is not None:
        return f"{development.name} ({quantity(count, 'problem')})"
    share = f"{100 * development.share:g}%"
    return (
        f"{quantity(count, 'problem')} that {agree(count, 'is', 'are')} not reported: {share} by the hash of "
        f"{agree(count, 'its', 'their')} id"
    )


def choose(
    samples: Samples, scorers: Iterable[Scored], settings: BestOfNSettings, chosen_on: str
) -> dict[str, Choice]:
    """Choose each scorer's aggregate, temperature and calibration on development problems.

    The aggregate is the one with the best mean accuracy of best-of-n over the sizes that the development
    problems have responses for; then the temperature is the one with the best mean accuracy of the
    sigmoid vote, from multiples of the scores' standard deviation.

    Args:
        samples: Development problems; the figures to be reported must come from others.
    """
    smallest = int(samples.num_responses.min())
    ns = tuple(n for n in settings.ns if n <= smallest) or (smallest,)
    valid = samples.valid
    within = BestOfNSettings(ns=ns, vote_kinds=("sigmoid",), resamples=settings.resamples, seed=settings.seed)
    subsets = vote_subsets(samples, within)
    choices = {}
    for scorer in scorers:
        accuracy = {
            name: float(best_of_n(scores, samples.correct, samples.num_responses, ns).mean())
            for name, scores in scorer.scores.items()
        }
        aggregate = max(accuracy, key=lambda name: accuracy[name])
        scores = scorer.scores[aggregate]
        temperature = 1.0
        if subsets:
            spread = float(scores[valid].std()) or 1.0
            # Scores have no scale of their own, so temperatures are tried in units of their spread.
            tried = [1.0, *(spread * factor for factor in (0.125, 0.25, 0.5, 1.0, 2.0, 4.0))]
            reached = [
                np.mean([subset.vote(sigmoid(scores / trial))[0].expected.mean() for subset in subsets])
                for trial in tried
            ]
            temperature = tried[int(np.argmax(reached))]
        choices[scorer.name] = Choice(
            aggregate=aggregate,
            temperature=temperature,
            log_odds={
                name: fit_log_odds(values[valid], samples.correct[valid])
                for name, values in scorer.scores.items()
            },
            chosen_on=chosen_on,
        )
    return choices
