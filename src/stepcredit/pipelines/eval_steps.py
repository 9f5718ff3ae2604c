"""Do step rewards distinguish wrong steps from right ones, in any step-labelled data?

AUC and average precision over all labelled steps; first wrong steps against the right ones before them;
how often the lowest reward is the first wrong step, or the last step; calibration; and the accuracy of
finding the first error with a threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints.sources import LoadOptions
from stepcredit.data import rollout_to_json, write_rows
from stepcredit.errors import UserError
from stepcredit.options import argument, check_draws, option, same_option
from stepcredit.pipelines import score
from stepcredit.runs import Manifest, locked
from stepcredit.scorers.options import ScorerOptions
from stepcredit.types import Rollout

if TYPE_CHECKING:
    from stepcredit.evaluation.labelled_data import LabelledParts
    from stepcredit.evaluation.score_columns import ScoreColumns
    from stepcredit.evaluation.step_results import StepEvaluation


_DEV = "dev"
"""Name of the development data."""


@dataclass(frozen=True, kw_only=True)
class LabelledInputs:
    """Labelled data and its scores."""

    data: tuple[str, ...] = argument(
        "labelled data: [NAME=]FILE or [NAME=]hub:DATASET[:SPLIT]; one or more", many=True
    )
    scores: tuple[str, ...] = option(
        "score files; SCORER/NAME=FILE if data files share ids", default=(), metavar="SCORER=FILE"
    )
    prm: tuple[str, ...] = option(
        "score the data with this model, or the one of a server, first (into --out)",
        default=(),
        metavar="SCORER=DIR",
    )
    family: str = same_option(ScorerOptions, "family")
    reference: str | None = same_option(ScorerOptions, "reference")
    reference_free: bool = same_option(ScorerOptions, "reference_free")
    reference_floor: float = same_option(ScorerOptions, "reference_floor")
    beta: float | None = same_option(ScorerOptions, "beta")
    convention: str = same_option(ScorerOptions, "convention")
    step_separator: str | None = same_option(ScorerOptions, "step_separator")
    classifier_server: str | None = same_option(ScorerOptions, "classifier_server")
    judge: str | None = same_option(ScorerOptions, "judge")
    judge_generator: str = same_option(ScorerOptions, "judge_generator")
    judge_samples: int | None = same_option(ScorerOptions, "judge_samples")
    cache: Path | None = same_option(ScorerOptions, "cache")
    load: LoadOptions = field(default_factory=LoadOptions)
    dev: str | None = option(
        "labelled data, not reported, to tune a threshold on; its scores are given as SCORER/dev=FILE",
        default=None,
        metavar="SOURCE",
    )
    out: Path | None = option("folder for converted data, scores, tables and report", default=None)
    title: str = option("title of the report", default="Wrong steps")
    draws: int = option("bootstrap draws over problems", default=10_000)
    seed: int = option("seed of the bootstrap", default=0)
    skip_invalid: bool = option(
        "leave out and count rows that cannot be used, instead of stopping", default=False
    )
    overwrite: bool = option("replace the existing output in --out", default=False)

    @property
    def sources(self) -> dict[str, str]:
        """Name of each part, the development data included, to where it is from."""
        from stepcredit.evaluation.labelled_data import named_sources

        return named_sources(self.data if self.dev is None else (*self.data, f"{_DEV}={self.dev}"))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit eval steps``."""

    inputs: LabelledInputs
    format: str = option(
        "format of the data: rollouts (with step_labels), prm800k, math-shepherd, bigbench-mistake, "
        "processbench or prmbench",
        default="rollouts",
        metavar="FORMAT",
    )


@dataclass(frozen=True, repr=False)
class StepResultOutput:
    """A step evaluation, to print."""

    evaluation: StepEvaluation

    def __repr__(self) -> str:
        return self.to_text()

    def to_json(self) -> Any:
        """All figures, unrounded."""
        return self.evaluation.to_json()

    def to_text(self) -> str:
        """Tables for a terminal."""
        from stepcredit.evaluation.tables import step_text

        return step_text(self.evaluation)

    def _repr_html_(self) -> str:
        """The tables, as a notebook shows them."""
        from stepcredit.reports.notebook import shown

        return shown(self.to_text())


def run(options: Options) -> StepResultOutput:
    """Evaluate."""
    from stepcredit.evaluation.step_evaluations import evaluate_steps

    with locked(options.inputs.out):
        parts = read_parts(options.inputs, options.format)
        evaluation = evaluate_steps(parts, draws=options.inputs.draws, seed=options.inputs.seed)
        write_outputs(options.inputs, "eval steps", evaluation, {"format": options.format})
    return StepResultOutput(evaluation)


def read_parts(inputs: LabelledInputs, format_name: str) -> LabelledParts:
    """Read data and scores, and make the scores that are asked for.

    Raises:
        UserError: Options do not fit together.
        DataError: Something cannot be read.
    """
    from stepcredit.evaluation.development import warn_of_shared_problems
    from stepcredit.evaluation.labelled_data import LabelledParts, labelled_part, read_labelled, read_scores

    sources = inputs.sources
    if not inputs.scores and not inputs.prm:
        raise UserError("give --scores SCORER=FILE, or --prm SCORER=DIR with --out", where="--scores")
    check_draws(inputs.draws, inputs.seed)
    scorings = _scorings(inputs, list(sources))
    data, excluded = read_labelled(sources, format_name, skip_invalid=inputs.skip_invalid)
    if inputs.dev is not None:
        reported = (rollout for name, part in data.items() if name != _DEV for rollout in part)
        warn_of_shared_problems(data[_DEV], reported)
    scores = read_scores(inputs.scores, list(sources), skip_invalid=inputs.skip_invalid)
    for part, rollouts in data.items():
        scores[part] |= _score_with_models(scorings[part], rollouts)
    parts = [
        labelled_part(name, rollouts, scores[name], skip_invalid=inputs.skip_invalid)
        for name, rollouts in data.items()
    ]
    return LabelledParts(
        tuple(part for part in parts if part.name != _DEV or inputs.dev is None),
        next((part.steps for part in parts if part.name == _DEV and inputs.dev is not None), {}),
        str(inputs.dev),
        excluded,
    )


def _scorings(inputs: LabelledInputs, parts: list[str]) -> dict[str, dict[str, score.Options]]:
    """Part to scorer to how the part's rollouts, written into ``out``, are scored there."""
    from stepcredit.evaluation.score_columns import named_sources

    if not inputs.prm:
        return {part: {} for part in parts}
    if inputs.out is None:
        raise UserError("needs --out, a folder for the scores", where="--prm")
    known = {setting.name for setting in fields(score.Options)} - {"prm", "out"}
    shared = {
        setting.name: getattr(inputs, setting.name) for setting in fields(inputs) if setting.name in known
    }
    return {
        part: {
            scorer: score.Options(
                **shared,
                input=inputs.out / part / "rollouts.jsonl",
                prm=model,
                out=inputs.out / part / f"scores-{scorer}.jsonl",
            )
            for scorer, model in named_sources(inputs.prm, "--prm")
        }
        for part in parts
    }


def _score_with_models(
    scorings: Mapping[str, score.Options], rollouts: list[Rollout]
) -> dict[str, ScoreColumns]:
    """Write the rollouts and score them; what is complete is not redone."""
    from stepcredit.evaluation.score_columns import read_score_columns

    columns = {}
    for scorer, scoring in scorings.items():
        assert scoring.input is not None
        assert scoring.out is not None
        write_rows(scoring.input, map(rollout_to_json, rollouts))
        score.run(scoring)
        columns[scorer] = read_score_columns(scoring.out)
    return columns


def write_outputs(
    inputs: LabelledInputs, command: str, evaluation: StepEvaluation, settings: Mapping[str, Any]
) -> None:
    """Write results, tables and report into ``out``, if there is one.

    Raises:
        UserError: It holds the results of other work, and ``overwrite`` is off.
    """
    if inputs.out is None:
        return
    from stepcredit.evaluation.labelled_data import score_files
    from stepcredit.evaluation.score_columns import named_sources
    from stepcredit.evaluation.tables import step_tables
    from stepcredit.reports.evaluation_folder import write_results

    sources = inputs.sources
    data = [Path(source) for source in sources.values()]
    scored = list(score_files(inputs.scores, list(sources)))
    files = [*data, *(path for *_, path in scored)]
    files += sorted(inputs.out.glob("*/scores-*.jsonl"))
    scorers = [[scorer, *covered] for scorer, covered, _ in scored]
    scorers += [[scorer, *sources] for scorer, _ in named_sources(inputs.prm, "--prm")]
    settings = {**settings, "sources": list(sources), "scorers": scorers}
    settings |= {"draws": inputs.draws, "seed": inputs.seed}
    manifest = Manifest(command, settings, inputs=files)
    tables = step_tables(evaluation)
    write_results(
        inputs.out,
        manifest,
        evaluation.to_json(),
        tables=tables,
        shown=tables,
        rows=evaluation.results,
        title=inputs.title,
        data=data,
        overwrite=inputs.overwrite,
    )
