"""How often the right answer is found by picking, by voting, and by both, from n responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import UserError
from stepcredit.evaluation.choices import VOTE_KINDS, Choice, fixed_choice, vote_weights
from stepcredit.evaluation.samples import Samples, Scored
from stepcredit.stats import (
    VoteSubsets,
    best_of_first_n,
    best_of_n,
    majority_vote,
    majority_vote_of_first_n,
    max_vote,
    pass_at_n,
)


@dataclass(frozen=True, slots=True)
class Method:
    """A way to turn n responses into one answer.

    Attributes:
        kind: ``pass`` (an oracle picks; at n = 1 this is a single response), ``majority``,
            ``best-of-n`` or ``weighted-<kind>`` with one of :data:`VOTE_KINDS`.
        scorer: Whose scores are used.
        aggregate: Which of its scores.
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
        ns: Subset sizes.
        vote_kinds: Which of :data:`VOTE_KINDS` to report.
        first: Take the first n responses in the file, as published evaluators do, instead of the
            expectation over all n-subsets.
        resamples: Random subsets per problem where a weighted vote has no closed form.
        seed: Of those.
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
        ns: Subset sizes.
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
        raise UserError(f"sizes must be 1 or more, not {', '.join(map(str, wanted)) or 'none'}", where="--n")
    kept = tuple(n for n in wanted if n <= smallest)
    if not kept:
        raise UserError(
            f"the smallest number of responses to a problem is {smallest}",
            where="--n",
            hint=f"ask for {smallest} or less",
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
        samples: Graded responses.
        scorers: Their scores.
        settings: ``ns`` must not exceed the smallest number of responses.
        choices: Scorer name to temperature and calibration of its votes.
    """
    ns = settings.ns
    subsets = vote_subsets(samples, settings)
    methods = [Method("pass")]
    values = [_oracle(samples, settings)]
    errors = [np.zeros(len(ns))]
    if samples.has_answers:
        vote = (
            majority_vote_of_first_n(samples.answers, samples.correct, ns)
            if settings.first
            else majority_vote(samples.answers, samples.correct, samples.num_responses, ns)
        )
        methods.append(Method("majority"))
        values.append(vote)
        errors.append(np.zeros(len(ns)))

    def of_scorer(scorer: Scored) -> list[tuple[Method, NDArray[np.float64], NDArray[np.float64]]]:
        choice = (choices or {}).get(scorer.name, fixed_choice())
        return list(_of_scorer(samples, scorer, settings, choice, subsets))

    # NumPy lets go of the interpreter lock in the parts that take long.
    with ThreadPoolExecutor(2) as pool:
        for outcomes_of_scorer in pool.map(of_scorer, scorers):
            for method, value, error in outcomes_of_scorer:
                methods.append(method)
                values.append(value)
                errors.append(error)
    return Outcomes(methods=tuple(methods), ns=ns, values=np.stack(values), resampling_error=np.stack(errors))


def _oracle(samples: Samples, settings: BestOfNSettings) -> NDArray[np.float64]:
    if settings.first:
        return np.stack([samples.correct[:, :n].any(axis=1) for n in settings.ns]).astype(np.float64)
    num_correct = samples.correct.sum(axis=1)
    return np.stack([pass_at_n(num_correct, samples.num_responses, n) for n in settings.ns])


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
            first=settings.first,
        )
        for n in settings.ns
    ]


_Found = tuple[Method, NDArray[np.float64], NDArray[np.float64]]


def _of_scorer(
    samples: Samples,
    scorer: Scored,
    settings: BestOfNSettings,
    choice: Choice,
    subsets: Sequence[VoteSubsets],
) -> Iterator[_Found]:
    done: list[tuple[NDArray[np.float64], str, list[_Found]]] = []
    for aggregate, scores in scorer.scores.items():
        # An implicit scorer's reward is the sum of its steps: the same figures under both names.
        same = next((figures for known, _, figures in done if np.allclose(known, scores, 1e-9, 1e-12)), None)
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
) -> Iterator[_Found]:
    exact = np.zeros(len(settings.ns))
    picked = (
        best_of_first_n(scores, samples.correct, settings.ns)
        if settings.first
        else best_of_n(scores, samples.correct, samples.num_responses, settings.ns)
    )
    yield Method("best-of-n", name, aggregate), picked, exact
    if not samples.has_answers:
        return
    valid = samples.valid
    votes: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for kind in settings.vote_kinds:
        if kind == "max":
            votes[kind] = _max_votes(samples, scores, settings), exact
        elif kind in ("sum", "mean"):
            if kind not in votes:
                estimates = [subset.vote(scores, ("sum", "mean")) for subset in subsets]
                for which, how in enumerate(("sum", "mean")):
                    votes[how] = (
                        np.stack([estimate[which].expected for estimate in estimates]),
                        np.array([estimate[which].resampling_error for estimate in estimates]),
                    )
        else:
            weights = vote_weights(kind, scores, valid, choice, aggregate)
            if kind == "log-odds" and "sum" in votes and np.array_equal(weights, scores):
                votes[kind] = votes["sum"]
                continue
            each_one = [subset.vote(weights)[0] for subset in subsets]
            votes[kind] = (
                np.stack([estimate.expected for estimate in each_one]),
                np.array([estimate.resampling_error for estimate in each_one]),
            )
    for kind in settings.vote_kinds:
        yield Method(f"weighted-{kind}", name, aggregate), *votes[kind]


def _max_votes(
    samples: Samples, scores: NDArray[np.float64], settings: BestOfNSettings
) -> NDArray[np.float64]:
    if not settings.first:
        return max_vote(samples.answers, scores, samples.correct, samples.num_responses, settings.ns)
    rows = []
    for n in settings.ns:
        head = np.full(samples.num_problems, n)
        rows.append(max_vote(samples.answers[:, :n], scores[:, :n], samples.correct[:, :n], head, [n])[0])
    return np.stack(rows)
