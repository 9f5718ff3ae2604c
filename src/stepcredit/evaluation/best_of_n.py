"""How often the right answer is found by picking, by voting, and by both, from n responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import UserError
from stepcredit.evaluation.choices import VOTE_KINDS, Choice, fixed_choice, vote_weights
from stepcredit.evaluation.samples import Samples, Scored
from stepcredit.stats import VoteSubsets, best_of_n, majority_vote, max_vote, pass_at_n


@dataclass(frozen=True, slots=True)
class Method:
    """A way to turn n responses into one answer.

    Attributes:
        kind: ``pass`` (an oracle picks; at n = 1 this is a single response), ``majority``,
            ``best-of-n`` or ``weighted-<kind>`` with one of :data:`VOTE_KINDS`.
    """

    kind: str
    scorer: str | None = None
    aggregate: str | None = None

    @property
    def label(self) -> str:
        """All parts joined by slashes."""
        return "/".join(part for part in (self.kind, self.scorer, self.aggregate) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfNSettings:
    """What determines the figures, besides the data.

    Attributes:
        vote_kinds: Which of :data:`VOTE_KINDS` to report.
        first: Take the first n responses in the file, as published evaluators do, instead of the
            expectation over all n-subsets.
        resamples: Random subsets per problem where a weighted vote has no closed form.
    """

    ns: tuple[int, ...] = (1, 4, 16, 64)
    vote_kinds: tuple[str, ...] = VOTE_KINDS
    first: bool = False
    resamples: int = 100
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Expected accuracy of each method on each problem.

    Attributes:
        methods: In the order of the results.
        values: Shape (methods, sizes, problems), in [0, 1].
        resampling_error: Standard error of the mean over problems from random subsets, shape
            (methods, sizes); 0 where the figure is exact.
    """

    methods: tuple[Method, ...]
    ns: tuple[int, ...]
    values: NDArray[np.float64]
    resampling_error: NDArray[np.float64]

    def of(self, method: Method) -> NDArray[np.float64]:
        """Values of one method, shape (sizes, problems)."""
        return np.asarray(self.values[self.methods.index(method)])


_Figures = tuple[Method, NDArray[np.float64], NDArray[np.float64]]
"""A method, its accuracy by size and problem, and by size the error of random subsets."""


def usable_sizes(
    ns: Sequence[int], num_responses: NDArray[np.int64]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes that every problem has responses for, rising, and those beyond.

    Raises:
        UserError: A size is below 1, or none is left.
    """
    smallest = int(num_responses.min())
    wanted = sorted(set(ns))
    if not wanted or wanted[0] < 1:
        raise UserError(f"sizes must be at least 1, not {', '.join(map(str, wanted)) or 'none'}", where="--n")
    kept = tuple(n for n in wanted if n <= smallest)
    if not kept:
        raise UserError(
            f"the smallest number of responses to a problem is {smallest}",
            where="--n",
            hint=f"ask for {smallest} or fewer",
        )
    return kept, tuple(n for n in wanted if n > smallest)


def outcomes(
    samples: Samples,
    scorers: Sequence[Scored],
    settings: BestOfNSettings,
    choices: Mapping[str, Choice] | None = None,
) -> Outcomes:
    """Expected accuracy of all methods on each problem.

    Args:
        settings: ``ns`` must not exceed the smallest number of responses.
        choices: Scorer name to temperature and calibration of its votes.
    """
    if settings.first:
        return _of_first_responses(samples, scorers, settings, choices)
    ns = settings.ns
    subsets = vote_subsets(samples, settings)
    exact = np.zeros(len(ns))
    num_correct = samples.correct.sum(axis=1)
    oracle = np.stack([pass_at_n(num_correct, samples.num_responses, n) for n in ns])
    figures: list[_Figures] = [(Method("pass"), oracle, exact)]
    if samples.has_answers:
        vote = majority_vote(samples.answers, samples.correct, samples.num_responses, ns)
        figures.append((Method("majority"), vote, exact))

    def of_scorer(scorer: Scored) -> list[_Figures]:
        choice = (choices or {}).get(scorer.name, fixed_choice())
        return list(_of_scorer(samples, scorer, settings, choice, subsets))

    # NumPy lets go of the interpreter lock in the parts that take long.
    with ThreadPoolExecutor(2) as pool:
        figures += chain.from_iterable(pool.map(of_scorer, scorers))
    methods, values, errors = zip(*figures, strict=True)
    return Outcomes(methods=methods, ns=ns, values=np.stack(values), resampling_error=np.stack(errors))


def _of_first_responses(
    samples: Samples,
    scorers: Sequence[Scored],
    settings: BestOfNSettings,
    choices: Mapping[str, Choice] | None,
) -> Outcomes:
    """For each n all that there is are its first responses, of which there is one n-subset."""
    by_size = []
    for n in settings.ns:
        head = replace(
            samples,
            num_responses=np.full(samples.num_problems, n),
            valid=samples.valid[:, :n],
            correct=samples.correct[:, :n],
            answers=samples.answers[:, :n],
        )
        scored = [
            replace(
                scorer,
                rows=scorer.rows[:, :n],
                scores={name: values[:, :n] for name, values in scorer.scores.items()},
            )
            for scorer in scorers
        ]
        by_size.append(outcomes(head, scored, replace(settings, ns=(n,), first=False), choices))
    return Outcomes(
        methods=by_size[0].methods,
        ns=settings.ns,
        values=np.concatenate([part.values for part in by_size], axis=1),
        resampling_error=np.concatenate([part.resampling_error for part in by_size], axis=1),
    )


def vote_subsets(samples: Samples, settings: BestOfNSettings) -> list[VoteSubsets]:
    """The subsets of each size, for votes that need them; none without answers."""
    if not samples.has_answers or not set(settings.vote_kinds) - {"max"}:
        return []
    return [
        VoteSubsets(
            samples.answers,
            samples.correct,
            samples.num_responses,
            n,
            num_draws=settings.resamples,
            seed=settings.seed + n,
        )
        for n in settings.ns
    ]


def _of_scorer(
    samples: Samples,
    scorer: Scored,
    settings: BestOfNSettings,
    choice: Choice,
    subsets: Sequence[VoteSubsets],
) -> Iterator[_Figures]:
    done: list[tuple[NDArray[np.float64], str, list[_Figures]]] = []
    for aggregate, scores in scorer.scores.items():
        # Some scorers give the same numbers under two names. Close ones may be in another order.
        same = next((figures for known, _, figures in done if np.array_equal(known, scores)), None)
        if same is not None and not choice.log_odds:
            yield from ((Method(m.kind, m.scorer, aggregate), value, error) for m, value, error in same)
            continue
        figures = list(_of_aggregate(samples, scorer.name, aggregate, scores, settings, choice, subsets))
        done.append((scores, aggregate, figures))
        yield from figures


def _of_aggregate(
    samples: Samples,
    name: str,
    aggregate: str,
    scores: NDArray[np.float64],
    settings: BestOfNSettings,
    choice: Choice,
    subsets: Sequence[VoteSubsets],
) -> Iterator[_Figures]:
    exact = np.zeros(len(settings.ns))
    given = samples.correct, samples.num_responses, settings.ns
    yield Method("best-of-n", name, aggregate), best_of_n(scores, *given), exact
    if not samples.has_answers:
        return
    for kind in settings.vote_kinds:
        method = Method(f"weighted-{kind}", name, aggregate)
        if kind == "max":
            yield method, max_vote(samples.answers, scores, *given), exact
            continue
        weights = vote_weights(kind, scores, samples.valid, choice, aggregate)
        combine: Literal["sum", "mean"] = "mean" if kind == "mean" else "sum"
        estimates = [subset.vote(weights, (combine,))[0] for subset in subsets]
        yield (
            method,
            np.stack([estimate.expected for estimate in estimates]),
            np.array([estimate.resampling_error for estimate in estimates]),
        )
