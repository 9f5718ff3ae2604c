"""What the step evaluations share: labelled data by name, and its scores from files or by a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints.sources import LoadOptions
from stepcredit.errors import UserError
from stepcredit.options import argument, option
from stepcredit.pipelines.eval_outputs import check_results, write_results
from stepcredit.runs import Manifest

if TYPE_CHECKING:
    from stepcredit.evaluation.labelled_steps import LabelledSteps
    from stepcredit.evaluation.score_columns import ScoreColumns
    from stepcredit.evaluation.step_results import StepEvaluation
    from stepcredit.types import Rollout


DEV = "dev"
"""Name of the development data."""


@dataclass(frozen=True, kw_only=True)
class LabelledInputs:
    """Labelled data and its scores."""

    data: tuple[str, ...] = argument(
        "labelled data: [NAME=]FILE or [NAME=]hub:DATASET[:SPLIT]; one or more", many=True
    )
    scores: tuple[str, ...] = option(
        "score files; SCORER/NAME=FILE where ids are not unique over the data",
        default=(),
        metavar="SCORER=FILE",
    )
    prm: tuple[str, ...] = option(
        "score the data with this model first (into --out)", default=(), metavar="SCORER=DIR"
    )
    reference: str | None = option("reference model of --prm; default is the one the PRM names", default=None)
    beta: float | None = option("scale of the log-ratio of --prm; default is the PRM's own", default=None)
    load: LoadOptions = field(default_factory=LoadOptions)
    dev: str | None = option(
        "labelled data, not reported, to tune a threshold on; its scores are given as SCORER/dev=FILE",
        default=None,
        metavar="SOURCE",
    )
    out: Path | None = option("folder for converted data, scores, tables and report", default=None)
    title: str = option("title of the report", default="Wrong steps")
    draws: int = option("bootstrap draws over problems", default=10_000)
    seed: int = option("of the bootstrap", default=0)
    skip_invalid: bool = option("leave out and count malformed rows", default=False)
    overwrite: bool = option("replace what is in --out", default=False)


@dataclass(frozen=True)
class StepResultOutput:
    """A step evaluation, to print."""

    evaluation: StepEvaluation

    def to_json(self) -> Any:
        """All figures, unrounded."""
        return self.evaluation.to_json()

    def to_text(self) -> str:
        """Tables for a terminal."""
        from stepcredit.evaluation.tables import step_text

        return step_text(self.evaluation)


@dataclass(frozen=True)
class Part:
    """One subset of the data and what each scorer says of it."""

    name: str
    rollouts: Sequence[Rollout]
    scorers: Mapping[str, ScoreColumns]

    def joined(self) -> Iterator[tuple[str, LabelledSteps]]:
        """Scorer name and its labelled steps."""
        from stepcredit.evaluation.labelled_steps import join_labels

        for scorer, columns in self.scorers.items():
            yield scorer, join_labels(self.rollouts, columns, source=f"{self.name} by {scorer}")


def diagnostics(parts: Sequence[Part], joined: Mapping[str, Mapping[str, LabelledSteps]]) -> dict[str, Any]:
    """What else the rewards follow and where they fail, by part and scorer, as JSON."""
    from stepcredit.evaluation.results import plain
    from stepcredit.evaluation.step_failures import diagnose_steps

    return {
        f"{part.name}/{scorer}": plain(diagnose_steps(part.rollouts, part.scorers[scorer], steps))
        for part in parts
        for scorer, steps in joined[part.name].items()
    }


def read_parts(inputs: LabelledInputs, format_name: str) -> tuple[list[Part], dict[str, int]]:
    """Read data and scores.

    Returns:
        The subsets in the order given, and what was left out, by reason.

    Raises:
        UserError: Options do not fit together.
        DataError: Something cannot be read.
    """
    from stepcredit.data.formats import read_rollouts_as

    sources = _sources(inputs)
    if not inputs.scores and not inputs.prm:
        raise UserError("give --scores SCORER=FILE, or --prm SCORER=DIR with --out", where="--scores")
    excluded: dict[str, int] = {}
    data = {}
    for name, source in sources.items():
        records = read_rollouts_as(source, format_name, skip_invalid=inputs.skip_invalid)
        data[name] = list(records)
        if records.num_skipped:
            excluded[f"invalid rows of {name}"] = records.num_skipped
        if not data[name]:
            raise UserError("holds no rows", where=source)
    scorers: dict[str, dict[str, ScoreColumns]] = {name: {} for name in sources}
    for subset, found in _read_scores(inputs, list(sources)).items():
        scorers[subset] |= found
    for subset, found in _score_with_models(inputs, data).items():
        scorers[subset] |= found
    return [Part(name, rollouts, scorers[name]) for name, rollouts in data.items()], excluded


def dev_steps(inputs: LabelledInputs, parts: Sequence[Part]) -> tuple[list[Part], dict[str, LabelledSteps]]:
    """The parts that are reported, and each scorer's labelled steps of the development data."""
    if inputs.dev is None:
        return list(parts), {}
    found: dict[str, LabelledSteps] = {}
    for part in parts:
        if part.name == DEV:
            found = dict(part.joined())
    return [part for part in parts if part.name != DEV], found


def _sources(inputs: LabelledInputs) -> dict[str, str]:
    data = inputs.data if inputs.dev is None else (*inputs.data, f"{DEV}={inputs.dev}")
    if not inputs.data:
        raise UserError("DATA is missing", hint="name at least one file or hub:DATASET[:SPLIT]")
    found: dict[str, str] = {}
    for each in data:
        name, separator, source = each.partition("=")
        if not separator or "/" in name:
            name, source = Path(each).name.split(".")[0].split(":")[-1], each
        if name in found:
            raise UserError(f"the name {name!r} is there twice", where="DATA", hint="write NAME=FILE")
        if not name or not source:
            raise UserError(f"{each!r} is not [NAME=]FILE", where="DATA")
        found[name] = source
    return found


def _read_scores(inputs: LabelledInputs, subsets: Sequence[str]) -> dict[str, dict[str, ScoreColumns]]:
    from stepcredit.evaluation.score_columns import read_many_score_columns

    named = []
    for each in inputs.scores:
        name, separator, path = each.partition("=")
        scorer, _, subset = name.partition("/")
        if not separator or not scorer or not path:
            raise UserError(f"{each!r} is not SCORER=FILE", where="--scores")
        if subset and subset not in subsets:
            raise UserError(
                f"there is no data named {subset!r}", where="--scores", hint=f"use {', '.join(subsets)}"
            )
        named.append((scorer, [subset] if subset else list(subsets), Path(path)))
    columns = read_many_score_columns([path for *_, path in named], skip_invalid=inputs.skip_invalid)
    found: dict[str, dict[str, ScoreColumns]] = {}
    for (scorer, covered, file), content in zip(named, columns, strict=True):
        for subset in covered:
            if scorer in found.setdefault(subset, {}):
                raise UserError(
                    f"the scores of {scorer!r} for {subset!r} are there twice ({file})",
                    where="--scores",
                    hint="write SCORER/NAME=FILE, one for each part of the data",
                )
            found[subset][scorer] = content
    return found


def _score_with_models(
    inputs: LabelledInputs, data: Mapping[str, Sequence[Rollout]]
) -> dict[str, dict[str, ScoreColumns]]:
    """Write each subset as rollouts into ``out`` and score it there; what is complete is not redone."""
    from stepcredit.data import rollout_to_json, write_rows
    from stepcredit.evaluation.score_columns import read_score_columns
    from stepcredit.pipelines import score
    from stepcredit.pipelines.eval_best_of_n import named_files

    if not inputs.prm:
        return {}
    if inputs.out is None:
        raise UserError("needs --out, a folder for the scores", where="--prm")
    models = list(named_files(inputs.prm, "--prm"))
    found: dict[str, dict[str, ScoreColumns]] = {}
    for subset, rollouts in data.items():
        folder = inputs.out / subset
        write_rows(folder / "rollouts.jsonl", map(rollout_to_json, rollouts))
        for scorer, model in models:
            target = folder / f"scores-{scorer}.jsonl"
            score.run(
                score.Options(
                    input=folder / "rollouts.jsonl",
                    prm=str(model),
                    reference=inputs.reference,
                    beta=inputs.beta,
                    out=target,
                    load=inputs.load,
                    skip_invalid=inputs.skip_invalid,
                    overwrite=inputs.overwrite,
                )
            )
            found.setdefault(subset, {})[scorer] = read_score_columns(target)
    return found


def write_outputs(
    inputs: LabelledInputs, command: str, evaluation: StepEvaluation, settings: Mapping[str, Any]
) -> None:
    """Write results, tables and report into ``out``, if there is one.

    Raises:
        UserError: It holds the results of other work, and ``overwrite`` is off.
    """
    if inputs.out is None:
        return
    from stepcredit.evaluation.tables import step_tables

    data = [Path(source) for source in _sources(inputs).values()]
    files = [*data, *(Path(each.partition("=")[2]) for each in inputs.scores)]
    files += sorted(inputs.out.glob("*/scores-*.jsonl"))
    settings = {
        **settings,
        "sources": list(_sources(inputs)),
        "draws": inputs.draws,
        "seed": inputs.seed,
    }
    manifest = Manifest(command, settings, inputs=files)
    check_results(inputs.out, manifest, overwrite=inputs.overwrite)
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
    )
