"""Accuracy of picking the best response, of voting, and of both together, from n of N scored responses.

If a closed form exists, figures are exact expectations over all subsets of n responses; ties are split
evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.errors import UserError
from stepcredit.options import argument, check_draws, option
from stepcredit.runs import Manifest, locked

if TYPE_CHECKING:
    from stepcredit.evaluation.best_of_n_evaluation import BestOfNEvaluation
    from stepcredit.evaluation.development import Development
    from stepcredit.evaluation.samples import Joined


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit eval best-of-n``."""

    graded: Path = argument("graded rollouts")
    scores: tuple[str, ...] = option(
        "scores of the same rollouts, with a name for the scorer (may be repeated)",
        default=(),
        metavar="NAME=FILE",
    )
    n: tuple[int, ...] = option(
        "numbers of responses to choose from, comma-separated", default=(1, 4, 16, 64)
    )
    aggregate: str = option(
        "the score by which scorers are compared, unless one is chosen on development problems",
        default="reward",
    )
    weighted: tuple[str, ...] = option(
        "weighted votes to evaluate: sigmoid, sum, mean, max, log-odds",
        default=("sigmoid", "sum", "mean", "max", "log-odds"),
    )
    first: bool = option(
        "take the first n responses in the file, as published evaluators do, instead of all subsets",
        default=False,
    )
    dev: Path | None = option("graded rollouts of development problems, to choose on", default=None)
    dev_scores: tuple[str, ...] = option(
        "scores of the development rollouts, under the same names", default=(), metavar="NAME=FILE"
    )
    dev_fraction: float | None = option(
        "choose on this share of the problems, by the hash of their id, and report the others", default=None
    )
    out: Path | None = option("folder for results.json, tables and report.html", default=None)
    title: str = option("title of the report", default="Best of n")
    draws: int = option("bootstrap draws over problems", default=10_000)
    resamples: int = option("random subsets per problem, if a weighted vote has no closed form", default=100)
    seed: int = option("seed of the bootstrap and the random subsets", default=0)
    skip_invalid: bool = option(
        "leave out and count rows that cannot be used, instead of stopping", default=False
    )
    overwrite: bool = option("replace the existing output in --out", default=False)


@dataclass(frozen=True, repr=False)
class EvalResult:
    """The evaluation, to print."""

    evaluation: BestOfNEvaluation

    def __repr__(self) -> str:
        return self.to_text()

    def to_json(self) -> Any:
        """All figures, unrounded."""
        return self.evaluation.to_json()

    def to_text(self) -> str:
        """Tables for a terminal."""
        from stepcredit.evaluation.tables import best_of_n_text

        return best_of_n_text(self.evaluation)

    def _repr_html_(self) -> str:
        """The accuracies, their plot against n, and the comparisons folded, as a notebook shows them."""
        from stepcredit.evaluation.tables import best_of_n_text, comparison_table
        from stepcredit.reports.evaluation_plots import accuracy_plot
        from stepcredit.reports.notebook import folded, shown
        from stepcredit.reports.plots import standalone

        plot = accuracy_plot(self.to_json(), render=standalone)
        comparisons = comparison_table(self.evaluation)
        text = best_of_n_text(replace(self.evaluation, comparisons=()))
        return shown(text, [plot]) + (
            folded("Paired differences", comparisons.to_text()) if comparisons.rows else ""
        )


def run(options: Options) -> EvalResult:
    """Evaluate."""
    with locked(options.out):
        return _evaluate(options)


def _evaluate(options: Options) -> EvalResult:
    from stepcredit.evaluation.best_of_n import BestOfNSettings
    from stepcredit.evaluation.best_of_n_evaluation import evaluate_best_of_n
    from stepcredit.evaluation.choices import VOTE_KINDS
    from stepcredit.evaluation.development import warn_of_shared_problems
    from stepcredit.evaluation.tables import accuracy_table, comparison_table
    from stepcredit.reports.evaluation_folder import check_results, write_results

    kinds = tuple(
        dict.fromkeys(kind.strip() for text in options.weighted for kind in text.split(",") if kind.strip())
    )
    unknown = [kind for kind in kinds if kind not in VOTE_KINDS]
    if unknown:
        raise UserError(
            f"{unknown[0]!r} is not a vote", where="--weighted", hint=f"use {', '.join(VOTE_KINDS)}"
        )
    check_draws(options.draws, options.seed)
    if options.resamples < 2:
        raise UserError(f"{options.resamples} is too few", where="--resamples", hint="use 100 or more")
    if options.out is not None:
        check_results(options.out, _manifest(options), overwrite=options.overwrite)
    joined = _joined(options.graded, options.scores, "--scores", options.skip_invalid)
    development = _development(options)
    if development is not None and development.joined is not None:
        both = (development.joined.samples.responses, joined.samples.responses)
        warn_of_shared_problems(*(chain.from_iterable(responses) for responses in both))
    evaluation = evaluate_best_of_n(
        joined,
        BestOfNSettings(
            ns=options.n,
            vote_kinds=kinds,
            first=options.first,
            resamples=options.resamples,
            seed=options.seed,
        ),
        aggregate=options.aggregate,
        development=development,
        draws=options.draws,
    )
    if options.out is not None:
        tables = [accuracy_table(evaluation), comparison_table(evaluation)]
        everything = [accuracy_table(evaluation, everything=True), comparison_table(evaluation)]
        write_results(
            options.out,
            _manifest(options),
            evaluation.to_json(),
            tables=[table for table in tables if table.rows],
            shown=[table for table in everything if table.rows],
            rows=evaluation.results,
            title=options.title,
            data=[options.graded],
            overwrite=options.overwrite,
        )
    return EvalResult(evaluation)


def _manifest(options: Options) -> Manifest:
    from stepcredit.evaluation.score_columns import named_files

    settings = {
        name: getattr(options, name)
        for name in ("n", "aggregate", "weighted", "first", "dev_fraction", "draws", "resamples", "seed")
    }
    scored = dict(named_files(options.scores, "--scores"))
    settings["scorers"] = list(scored)
    dev = [] if options.dev is None else [options.dev]
    dev += [path for _, path in named_files(options.dev_scores, "--dev-scores")]
    return Manifest("eval best-of-n", settings, inputs=[options.graded, *scored.values(), *dev])


def _development(options: Options) -> Development | None:
    from stepcredit.evaluation.development import Development
    from stepcredit.evaluation.score_columns import named_files

    if options.dev is None and options.dev_fraction is None:
        if options.dev_scores:
            raise UserError("needs --dev, the rollouts that it scores", where="--dev-scores")
        return None
    if options.dev is not None and options.dev_fraction is not None:
        raise UserError("cannot be given with --dev-fraction", where="--dev", hint="choose on one of them")
    if options.dev_fraction is not None:
        if not 0.0 < options.dev_fraction < 1.0:
            raise UserError(f"must be between 0 and 1, got {options.dev_fraction:g}", where="--dev-fraction")
        return Development(share=options.dev_fraction)
    assert options.dev is not None
    names = [name for name, _ in named_files(options.scores, "--scores")]
    dev_names = [name for name, _ in named_files(options.dev_scores, "--dev-scores")]
    if sorted(names) != sorted(dev_names):
        raise UserError(
            f"names {', '.join(dev_names) or 'no scorer'}, but --scores names {', '.join(names) or 'none'}",
            where="--dev-scores",
            hint="give the development scores of every scorer under the same name",
        )
    joined = _joined(options.dev, options.dev_scores, "--dev-scores", options.skip_invalid)
    return Development(joined=joined, name=str(options.dev))


def _joined(graded: Path, scores: Sequence[str], flag: str, skip_invalid: bool) -> Joined:
    from stepcredit.evaluation.samples import read_joined
    from stepcredit.evaluation.score_columns import named_files

    return read_joined(graded, dict(named_files(scores, flag)), skip_invalid=skip_invalid)
