"""How much does each scoring convention change a result?

One implicit reward model scores the same responses by every published convention, with and without its
reference. Best-of-n accuracy (for graded responses) and ProcessBench's F1 (for step-labelled ones) are then
compared with stepcredit's own convention, clean, on the same problems.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints import PRMCard
from stepcredit.data import read_rollouts_as
from stepcredit.data.foreign import ROLLOUT_FORMATS
from stepcredit.errors import UserError
from stepcredit.options import argument, check_draws, option
from stepcredit.pipelines import score
from stepcredit.runs import Manifest, Output, check_output, locked, write_json, write_text
from stepcredit.scorers.options import ImplicitOptions
from stepcredit.types import Rollout
from stepcredit.wording import agree

if TYPE_CHECKING:
    from stepcredit.evaluation.conventions import Convention, ConventionResult
    from stepcredit.evaluation.score_columns import ScoreColumns

RESULTS = "conventions.json"


@dataclass(frozen=True, kw_only=True)
class Options(ImplicitOptions):
    """Options of ``stepcredit eval conventions``."""

    data: Path = argument("rollouts that are graded, step-labelled, or both")
    format: str = option(f"format of DATA: {ROLLOUT_FORMATS}", default="rollouts", metavar="FORMAT")
    n: tuple[int, ...] = option("numbers of responses to choose from, comma-separated", default=(4, 16, 64))
    out: Path = option("folder for the score files, conventions.json and tables.md", metavar="DIR")
    draws: int = option("bootstrap draws over problems", default=10_000)
    seed: int = option("seed of the bootstrap", default=0)
    skip_invalid: bool = option(
        "leave out and count rows that cannot be used, instead of stopping", default=False
    )
    overwrite: bool = option("replace the existing output in --out", default=False)


@dataclass(frozen=True)
class ConventionsResult:
    """What each convention changes, to print."""

    results: tuple[ConventionResult, ...]
    excluded: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All figures, unrounded."""
        from stepcredit.evaluation.results import plain

        values: dict[str, Any] = plain(self)
        return values

    def to_text(self) -> str:
        """Tables for a terminal."""
        from stepcredit.evaluation.conventions import convention_tables

        lines = [f"left out, {reason}: {count:,}" for reason, count in self.excluded.items()]
        lines += [f"note: {note}" for note in self.notes]
        return "\n\n".join(
            [*(table.to_text() for table in convention_tables(self.results)), "\n".join(lines)]
        )


def run(options: Options) -> ConventionsResult:
    """Score by every convention, and compare.

    Raises:
        UserError: The data are neither graded nor labelled, or the model cannot score them.
    """
    with locked(options.out):
        return _evaluate(options)


def _evaluate(options: Options) -> ConventionsResult:
    import numpy as np

    from stepcredit.evaluation.best_of_n import usable_sizes

    check_draws(options.draws, options.seed)
    rollouts = list(read_rollouts_as(options.data, options.format, skip_invalid=options.skip_invalid))
    counts = Counter(rollout.prompt_id for rollout in rollouts if rollout.correct is not None)
    graded = min(counts.values(), default=0) > 1
    labelled = any(rollout.step_labels for rollout in rollouts)
    if graded:
        usable_sizes(options.n, np.array(list(counts.values())))
    if not graded and not labelled:
        raise UserError(
            "has neither several graded responses to each problem nor step labels",
            where=options.data,
            hint="grade it first: stepcredit grade",
        )
    if options.out.is_file():
        raise UserError("is a file", where=options.out, hint="name a folder as --out")
    conventions = _conventions(options, graded=graded)
    scorings = {name: _score_options(options, name, how) for name, how in conventions.items()}
    settings = {name: getattr(options, name) for name in ("format", "steps", "n", "draws", "seed")}
    settings["scores"] = {name: scoring.determining() for name, scoring in scorings.items()}
    manifest = Manifest("eval conventions", settings, inputs=[options.data])
    check_output(options.out / RESULTS, manifest, overwrite=options.overwrite)
    columns = _score(scorings)
    made = {name: (how, columns[name]) for name, how in conventions.items()}
    result = _compare(options, rollouts, made, graded=graded, labelled=labelled)
    _write(options, manifest, result)
    return result


def _conventions(options: Options, *, graded: bool) -> dict[str, Convention]:
    """Name of each score file to how it is made; the baseline comes first.

    The published best-of-n evaluator cuts a response by itself, so step labels say nothing of its steps.
    """
    from stepcredit.evaluation.conventions import Convention

    references = (True, False) if _has_reference(options) else (False,)
    return {
        f"{steps}{'' if reference else '-without-reference'}": Convention(steps=steps, reference=reference)
        for steps in ("clean", "processbench", *(["best-of-n"] if graded else []))
        for reference in references
    }


def _has_reference(options: Options) -> bool:
    directory = options.directory()
    if options.reference is not None or options.reference_server is not None or not PRMCard.exists(directory):
        return True
    return PRMCard.read(directory).reference is not None


def _score_options(options: Options, name: str, how: Convention) -> score.Options:
    shared = {field.name: getattr(options, field.name) for field in fields(ImplicitOptions)}
    if not how.reference:
        shared |= {"reference": None, "reference_server": None}
    return score.Options(
        **shared,
        family="implicit",
        convention=how.steps,
        reference_free=not how.reference,
        input=options.data,
        format=options.format,
        out=options.out / f"{name}.jsonl",
        skip_invalid=options.skip_invalid,
        overwrite=options.overwrite,
    )


def _score(scorings: Mapping[str, score.Options]) -> dict[str, ScoreColumns]:
    """Make the score files; what is complete is not redone. The first one's step rule serves all."""
    from stepcredit.evaluation.score_columns import read_score_columns

    columns: dict[str, ScoreColumns] = {}
    rule: str | None = None
    for name, scoring in scorings.items():
        cuts_itself = scoring.convention == "best-of-n"
        result = score.run(scoring if cuts_itself or rule is None else replace(scoring, steps=rule))
        assert isinstance(result, score.Result)
        assert scoring.out is not None
        rule = rule or result.step_rule
        columns[name] = read_score_columns(scoring.out)
    return columns


def _compare(
    options: Options,
    rollouts: Sequence[Rollout],
    made: Mapping[str, tuple[Convention, ScoreColumns]],
    *,
    graded: bool,
    labelled: bool,
) -> ConventionsResult:
    from stepcredit.evaluation.best_of_n import usable_sizes
    from stepcredit.evaluation.conventions import best_of_n_by_convention, error_finding_by_convention
    from stepcredit.evaluation.remarks import interval_remarks
    from stepcredit.evaluation.samples import join

    results: list[ConventionResult] = []
    excluded: dict[str, int] = {}
    notes = [
        f"{name}: {len(columns.step_rewards) / len(columns.ids):.1f} steps per response"
        for name, (how, columns) in made.items()
        if how.reference == next(iter(made.values()))[0].reference
    ]
    if graded:
        columns = {name: scores for name, (_, scores) in made.items()}
        joined = join(rollouts, columns, source=str(options.data), skip_invalid=options.skip_invalid)
        excluded |= joined.excluded
        ns, beyond = usable_sizes(options.n, joined.samples.num_responses)
        if beyond:
            notes.append(
                f"n = {', '.join(map(str, beyond))} {agree(len(beyond), 'is', 'are')} left out: the smallest "
                f"number of responses to a problem is {joined.samples.num_responses.min()}"
            )
        how_made = {name: how for name, (how, _) in made.items()}
        results += best_of_n_by_convention(joined, how_made, ns, draws=options.draws, seed=options.seed)
    if labelled:
        same_steps = {
            name: (how, columns) for name, (how, columns) in made.items() if how.steps != "best-of-n"
        }
        by_convention, left_out = error_finding_by_convention(
            rollouts, same_steps, draws=options.draws, seed=options.seed
        )
        results += by_convention
        excluded |= left_out
        notes.append(
            "each F1 is at the threshold that is best on these very steps, which makes it too optimistic"
        )
    num_problems = len({rollout.prompt_id for rollout in rollouts})
    notes += interval_remarks({"": num_problems}, [(row.low, row.high) for row in results])
    return ConventionsResult(tuple(results), excluded, tuple(notes))


def _write(options: Options, manifest: Manifest, result: ConventionsResult) -> None:
    from stepcredit.evaluation.conventions import convention_tables

    manifest.counts.update(result.excluded)
    with (
        Output(options.out / RESULTS, manifest, overwrite=options.overwrite) as output,
        output.replacing() as results,
    ):
        write_json(results, result.to_json(), named=output.path)
        tables = "\n".join(table.to_markdown() for table in convention_tables(result.results))
        write_text(options.out / "tables.md", tables)
